"""GitHub for the surface contract: the real PyGithub against the playground's issues."""

from __future__ import annotations

from collections.abc import Sequence

from bot.models import Identity, Mark, MessageRef, ThreadKey
from tests.github_stage import WEB, Stage

SIGNS = {"eyes": Mark.SEEN, "rocket": Mark.CONSUMED, "confused": Mark.REFUSED}
COMMENTS = r"/issues/\d+/comments$"


class GitHubRig:
    """ada opens issues in acme/web. Whom the surface knows to be outside are bots."""

    def __init__(self, stage: Stage) -> None:
        self.surface = stage.surface
        self.member = stage.identity("ada")
        self.takes_files, self.largest = False, 63_000
        self.alive: Sequence[str] = (
            "@ada",
            "@acme/all",
            "![x](https://evil.test)",
            "<img src=x>",
            "<!-- x",
        )
        self.outsider: Identity | None = stage.identity("dependabot[bot]")
        self._github = stage.github
        self._repository = str(stage.repository_id)

    async def open(self, text: str) -> tuple[ThreadKey, MessageRef]:
        number = str(self._github.open_issue(WEB, "ada", text))
        return ThreadKey("github", self._repository, number), MessageRef("github", WEB, number, "issue")

    async def reply(self, thread: ThreadKey, text: str) -> tuple[MessageRef, str]:
        id = self._github.comment(WEB, int(thread.id), "ada", text)
        said = self._github.repository(WEB).comments[id]
        sent = f"{said.created_at.timestamp():.6f}#{id:020d}"
        return MessageRef("github", WEB, str(id), "comment"), sent

    async def posts(self, thread: ThreadKey) -> Sequence[str]:
        comments = self._github.comments(WEB, int(thread.id))
        return [comment.body for comment in comments if comment.user is self._github.bot]

    async def marks(self, ref: MessageRef) -> Sequence[Mark]:
        repository = self._github.repository(WEB)
        said = repository.issues[int(ref.id)] if ref.kind == "issue" else repository.comments[int(ref.id)]
        return [SIGNS[reaction.content] for reaction in said.reactions]

    async def delete(self, ref: MessageRef) -> None:
        self._github.delete_comment(WEB, int(ref.id), "ada")

    async def readable(self, thread: ThreadKey) -> Sequence[bytes]:
        return [post.encode() for post in await self.posts(thread)]

    def called(self, person: Identity) -> str:
        return f"@{person.name}"

    def lose_next_answer(self) -> None:
        self._github.lose_answer_next("POST", COMMENTS)

    def lose_next_file_answer(self) -> None:
        self.lose_next_answer()

    def limit_next(self, seconds: int) -> None:
        message = "You have exceeded a secondary rate limit. Please retry your request again later."
        self._github.fail_next("POST", COMMENTS, 403, message=message, headers={"Retry-After": str(seconds)})

    def break_next(self) -> None:
        self._github.fail_next("POST", COMMENTS, 502)
