"""A stored delivery of GitHub's, understood: what a person said to us. Pure; nothing is asked of anybody.

Payloads: docs.github.com, "Webhook events and payloads" (`issues`, `issue_comment`). Only the keys that
are used are looked at, and every one of them is checked: the bytes are signed, their shape is not ours.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from bot.errors import Undecodable
from bot.models import Delivery, Identity, Message, MessageRef, ThreadKey, Verb
from handlers.commands import Words, parse_words
from handlers.github.text import one_line, visible

SURFACE = "github"

# What we act on. Everything else that an App may be subscribed to is not stored.
ACTIONS = frozenset(
    {
        ("issues", "labeled"),
        ("issues", "unlabeled"),
        ("issue_comment", "created"),
        ("issue_comment", "edited"),
        ("issue_comment", "deleted"),
    }
)

_LOGIN = re.compile(r"[A-Za-z0-9_-]{1,100}")
_FULL_NAME = re.compile(r"[A-Za-z0-9_.-]{1,100}/[A-Za-z0-9_.-]{1,100}")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
_CODE_OR_QUOTE = r"^ {0,3}(`{3,}|~{3,}).*?(?:^ {0,3}\1|\Z)|`[^`\n]+`|^ {0,3}>[^\n]*"
_ANSWER = re.compile(r"(?:approve|deny|reset) \d{1,18}", re.IGNORECASE)
_FLAGS = re.DOTALL | re.MULTILINE | re.IGNORECASE
_LARGEST_ID = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Ourselves:
    """Who we are on GitHub: the App's id and slug (its mention and its bot's login), and our label."""

    app_id: int
    slug: str
    label: str = "sandpiper"

    @property
    def login(self) -> str:
        return f"{self.slug}[bot]"


@dataclass(frozen=True, slots=True)
class _Scene:
    """What all payloads that we know have in common."""

    payload: Mapping[str, object]
    issue: Mapping[str, object]
    number: int
    title: str
    repository_id: int
    full_name: str
    sender: Identity

    @property
    def thread(self) -> ThreadKey:
        return ThreadKey(SURFACE, str(self.repository_id), str(self.number))

    @property
    def is_pull_request(self) -> bool:
        return isinstance(self.issue.get("pull_request"), Mapping)


def parse(delivery: Delivery, ourselves: Ourselves) -> tuple[Message, ...]:
    """The messages in a delivery; none when it is not for us. Raises Undecodable, and nothing else."""
    payload = decoded(delivery.body)
    action = payload.get("action")
    if not isinstance(action, str) or (delivery.kind, action) not in ACTIONS:
        return ()
    if by_machine(payload, ourselves.app_id):
        return ()
    if delivery.kind == "issues":
        label = _text(_object(payload, "label"), "name")
        if label.casefold() != ourselves.label.casefold():
            return ()
        scene = _scene(payload)
        return (_labeled(scene) if action == "labeled" else _unlabeled(scene),)
    comment = _object(payload, "comment")
    author = comment.get("user")
    if not isinstance(author, Mapping) or author.get("type") != "User":
        return ()
    return _commented(_scene(payload), comment, action, ourselves)


def by_machine(payload: Mapping[str, object], app_id: int) -> bool:
    """Whether a bot did it, or our own App in somebody's name. Bots never start or steer work."""
    sender = payload.get("sender")
    if not isinstance(sender, Mapping) or sender.get("type") != "User":
        return True
    comment = payload.get("comment")
    app = comment.get("performed_via_github_app") if isinstance(comment, Mapping) else None
    return isinstance(app, Mapping) and app.get("id") == app_id


def _labeled(scene: _Scene) -> Message:
    """The labeller starts the work; what the issue says are their words only where they wrote it.

    The key is the issue's `updated_at`, which every labelling moves: the same labelling told again
    (redelivered, or replayed under another delivery id, which no signature covers) is one effect,
    and taking the label off and putting it on later starts again. Times are whole seconds, so two
    labellings within one second are one.
    """
    at = _time(scene.issue, "updated_at")
    author = scene.issue.get("user")  # null: the account was deleted
    own = isinstance(author, Mapping) and str(author.get("id")) == scene.sender.user
    return Message(
        key=f"github:label:{scene.repository_id}/{scene.number}/{at}",
        thread=scene.thread,
        author=scene.sender,
        sent=_sent(at),
        text=_issue_text(scene) if own else f"Work on issue #{scene.number} of {scene.full_name}.",
        ref=_issue_ref(scene),
        addressed=True,
        repository=scene.full_name,
        title=scene.title,
        background="" if own else _about(scene),
    )


def _unlabeled(scene: _Scene) -> Message:
    at = _time(scene.issue, "updated_at")
    return Message(
        key=f"github:unlabel:{scene.repository_id}/{scene.number}/{at}",
        thread=scene.thread,
        author=scene.sender,
        sent=_sent(at),
        text="",
        verb=Verb.STOP,  # not addressed, and no words of anybody's: where nothing runs, nothing is answered
        repository=scene.full_name,
        title=scene.title,
    )


def _commented(
    scene: _Scene, comment: Mapping[str, object], action: str, ourselves: Ourselves
) -> tuple[Message, ...]:
    id = _id(comment, "id")
    key = f"github:comment:{id}"
    ref = MessageRef(SURFACE, scene.full_name, str(id), "comment", _link(comment))
    if action == "deleted":
        message = Message(
            key=f"{key}:deleted",
            thread=scene.thread,
            author=scene.sender,
            sent=_sent(_time(comment, "updated_at"), id),
            text="",
            repository=scene.full_name,
            revises=key,
            withdrawn=True,
        )
        return (message,)
    body = _text(comment, "body")
    revises, at = "", _time(comment, "created_at")
    if action == "edited":
        changes = scene.payload.get("changes")
        if not isinstance(changes, Mapping) or "body" not in changes:
            return ()
        # Two edits within one second differ in their text, if in nothing else.
        digest = hashlib.sha256(body.encode(errors="surrogatepass")).hexdigest()[:12]
        revises, at = key, _time(comment, "updated_at")
        key = f"{key}:edited:{at}:{digest}"
    addressed, words = understood(visible(body), ourselves.slug)
    message = Message(
        key=key,
        thread=scene.thread,
        author=scene.sender,
        sent=_sent(at, id),
        text=words.text,
        ref=ref,
        addressed=addressed,
        verb=words.verb,
        mode=words.mode,
        options=words.options,
        repository=scene.full_name,
        pull_request=scene.is_pull_request,
        title=scene.title,
        background=_about(scene) if addressed and not words.verb else "",
        revises=revises,
    )
    return (message,)


def understood(said: str, slug: str) -> tuple[bool, Words]:
    """Whether a comment speaks to us, and what it asks.

    It does when it mentions `@slug` outside quotes and code, or when its first line is a command,
    `/slug …`. Then verbs, modes and options are looked for; other comments are taken as they are, but for
    one that is `approve 12`, `deny 12` or `reset 12` and nothing else.
    """
    name = re.escape(slug)
    command = re.match(rf"/{name}(?=\s|\Z)", said, re.IGNORECASE)
    if command:
        return True, parse_words(said[command.end() :])
    mention = rf"(?P<us>(?<![\w/@.-])@{name}(?:\[bot\])?(?![\w-]|/\w)[,:]?[ \t]*)"
    kept, position, addressed = [], 0, False
    for found in re.finditer(f"{_CODE_OR_QUOTE}|{mention}", said, _FLAGS):
        if found["us"] is None:
            continue
        addressed = True
        kept.append(said[position : found.start()])
        position = found.end()
    if not addressed:
        answer = parse_words(said) if _ANSWER.fullmatch(said.strip()) else None
        return False, answer or Words(text=said)
    return True, parse_words("".join([*kept, said[position:]]))


# the payload's parts, each checked


def decoded(body: bytes) -> Mapping[str, object]:
    """Raises Undecodable."""
    try:
        payload = json.loads(body)
    except (ValueError, RecursionError) as exc:
        raise Undecodable("The delivery is not JSON.") from exc
    if not isinstance(payload, Mapping):
        raise Undecodable("The delivery is not a JSON object.")
    return payload


def _scene(payload: Mapping[str, object]) -> _Scene:
    issue, repository = _object(payload, "issue"), _object(payload, "repository")
    sender, installation = _object(payload, "sender"), payload.get("installation")
    if not isinstance(installation, Mapping):
        raise Undecodable(
            "The delivery names no installation.", "Use the GitHub App's webhook, not a repository's."
        )
    login = _matched(sender, "login", _LOGIN)
    tenant = f"{SURFACE}:{_id(installation, 'id')}"
    return _Scene(
        payload=payload,
        issue=issue,
        number=_id(issue, "number"),
        title=one_line(_text(issue, "title"), 300),
        repository_id=_id(repository, "id"),
        full_name=_matched(repository, "full_name", _FULL_NAME),
        sender=Identity(SURFACE, tenant, str(_id(sender, "id")), login),
    )


def _issue_text(scene: _Scene) -> str:
    return f"{scene.title}\n\n{visible(_text(scene.issue, 'body', missing=''))}".strip()


def _about(scene: _Scene) -> str:
    kind = "Pull request" if scene.is_pull_request else "Issue"
    author = _login_of(scene.issue) or "somebody whose account is gone"
    return f"{kind} #{scene.number} of {scene.full_name}, by {author}:\n{_issue_text(scene)}"


def _issue_ref(scene: _Scene) -> MessageRef:
    return MessageRef(SURFACE, scene.full_name, str(scene.number), "issue", _link(scene.issue))


def _link(holder: Mapping[str, object]) -> str:
    return one_line(_text(holder, "html_url", missing=""), 500)


def _sent(at: str, id: int = 0) -> str:
    """Sorts by time, also among messages of other surfaces, then in the order that GitHub made them."""
    try:
        seconds = datetime.fromisoformat(at).timestamp()
    except ValueError:
        raise Undecodable(f"The delivery's time {at} is none.") from None
    return f"{seconds:017.6f}#{id:020d}"


def _login_of(issue: Mapping[str, object]) -> str:
    user = issue.get("user")  # null: the account was deleted
    login = user.get("login") if isinstance(user, Mapping) else None
    return login if isinstance(login, str) else ""


def _object(holder: Mapping[str, object], key: str) -> Mapping[str, object]:
    value = holder.get(key)
    if not isinstance(value, Mapping):
        raise Undecodable(f"The delivery has no '{key}' object.")
    return value


def _text(holder: Mapping[str, object], key: str, *, missing: str | None = None) -> str:
    value = holder.get(key)
    if value is None and missing is not None:
        return missing
    if not isinstance(value, str):
        raise Undecodable(f"The delivery's '{key}' is not a text.")
    return value


def _matched(holder: Mapping[str, object], key: str, pattern: re.Pattern[str]) -> str:
    value = _text(holder, key)
    if not pattern.fullmatch(value):
        raise Undecodable(f"The delivery's '{key}' does not look like one.")
    return value


def _time(holder: Mapping[str, object], key: str) -> str:
    return _matched(holder, key, _TIME)


def _id(holder: Mapping[str, object], key: str) -> int:
    value = holder.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= _LARGEST_ID:
        raise Undecodable(f"The delivery's '{key}' is not an id.")
    return value
