"""The product between the playground's Slack, GitHub and git: a real process that can be killed."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from handlers.playground.bot_process import BotProcess
from handlers.playground.demo import BOT, end_left_over, surroundings
from handlers.playground.github import GitHubPlayground
from handlers.playground.github_state import Issue
from handlers.playground.playground import Playground
from handlers.playground.slack import SlackPlayground
from handlers.playground.slack_limits import NO_RATES
from handlers.playground.slack_state import Message
from handlers.slack.ids import STOP_ACTION

WAIT = 40.0
REPOSITORY = "acme/web"
DEV = "C_DEV"

SEEN, WAITS, CONSUMED, REFUSED = "eyes", "hourglass_flowing_sand", "white_check_mark", "no_entry_sign"

# Requests at which the bot can be held up: bringing the code in, pushing, opening the pull request.
CODE_IN = ("GET", r"\.git/info/refs$")
PUSH = ("POST", r"\.git/git-receive-pack$")
OPEN_PULL = ("POST", r"/pulls$")


@dataclass
class Rig:
    """People on one side, the bot's process on the other."""

    playground: Playground
    directory: Path
    settings: Mapping[str, str]
    bot: BotProcess = field(init=False)

    def __post_init__(self) -> None:
        self.bot = self._new_bot()

    @property
    def slack(self) -> SlackPlayground:
        return self.playground.slack

    @property
    def github(self) -> GitHubPlayground:
        return self.playground.github

    @property
    def log(self) -> str:
        return (self.directory / "bot.log").read_text(errors="replace")

    async def start(self) -> None:
        await self.bot.start()

    async def kill(self) -> None:
        """kill -9 the bot, and nothing else, and don't let it come back by itself."""
        pid = self.bot.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        await self.bot.stop()

    async def start_again(self, **settings: str) -> None:
        self.settings = {**self.settings, **settings}
        self.bot = self._new_bot()
        await self.bot.start()

    def mention(
        self,
        text: str,
        *,
        by: str = "U_ANA",
        thread: str | None = None,
        channel: str = DEV,
        files: Mapping[str, bytes] = MappingProxyType({}),
    ) -> str:
        text = f"<@{self.slack.bot_user_id}> {text}"
        return self.slack.post(by, channel, text, thread_ts=thread, files=files)

    def reply(self, thread: str, text: str, *, by: str = "U_ANA", channel: str = DEV) -> str:
        return self.slack.post(by, channel, text, thread_ts=thread)

    def thread(self, root: str, channel: str = DEV) -> list[Message]:
        """The bot's posts in a thread."""
        posts = self.slack.messages(channel, root)
        return [post for post in posts if post.user == self.slack.bot_user_id]

    def finals(self, root: str, channel: str = DEV) -> list[Message]:
        return [post for post in self.thread(root, channel) if marker(post).startswith("final:")]

    def notes(self, root: str, channel: str = DEV) -> list[str]:
        """What the bot said in a thread besides pictures and last words."""
        told = ("timeline:", "final:", "root:")
        return [post.shown for post in self.thread(root, channel) if not marker(post).startswith(told)]

    def reactions(self, ts: str, channel: str = DEV) -> set[str]:
        return set(self.slack.reactions(channel, ts))

    async def marked(self, ts: str, *emoji: str) -> None:
        """Wait until a message carries exactly these marks."""
        await self.slack_until(lambda: self.reactions(ts) == set(emoji))

    async def stop(self, root: str, *, by: str = "U_ANA", earlier: bool = False) -> None:
        """Press Stop at the newest timeline of a thread, once it has that button; with `earlier`, at what it
        showed before the button was taken away."""
        if not earlier:
            await self.shows(root, STOP_ACTION)
        await self.slack.click(by, DEV, self.timelines(root)[-1].ts, STOP_ACTION, earlier=earlier)

    async def slack_until(self, true: Callable[[], bool]) -> None:
        await self.slack.wait_for(true, timeout=WAIT)

    async def github_until(self, true: Callable[[], bool]) -> None:
        await self.github.wait_for(true, timeout=WAIT)

    async def final(self, root: str, number: int = 1, channel: str = DEV) -> Message:
        await self.slack_until(lambda: len(self.finals(root, channel)) >= number)
        return self.finals(root, channel)[number - 1]

    def timelines(self, root: str, channel: str = DEV) -> list[Message]:
        return [post for post in self.thread(root, channel) if marker(post).startswith("timeline:")]

    def picture(self, root: str, channel: str = DEV) -> str:
        """The newest timeline of a thread, as text."""
        pictures = self.timelines(root, channel)
        return str(pictures[-1].blocks) if pictures else ""

    async def shows(self, root: str, words: str, channel: str = DEV) -> None:
        """Wait until the newest timeline of a thread has these words."""
        await self.slack_until(lambda: words in self.picture(root, channel))

    async def status(self, root: str, channel: str = DEV) -> str:
        """The bot's answer to `status`: everything that was written in the thread before has had its
        effect then, since messages of a thread are taken one by one."""

        def answers() -> list[Message]:
            return [post for post in self.thread(root, channel) if marker(post).startswith("status:")]

        before = len(answers())
        self.mention("status", thread=root, channel=channel)
        await self.slack_until(lambda: len(answers()) > before)
        return answers()[-1].shown

    def pull(self, final: Message) -> Issue:
        """The pull request that last words lead to."""
        return self.github.issue(*self._pull_of(final))

    def branch(self, final: Message) -> str:
        pull = self.pull(final).pull
        assert pull is not None
        return pull.head

    async def diff(self, final: Message) -> str:
        return await self.github.diff(*self._pull_of(final))

    def _pull_of(self, final: Message) -> tuple[str, int]:
        ((repository, number),) = set(re.findall(r"([\w.-]+/[\w.-]+)/pull/(\d+)", str(final.blocks)))
        return repository, int(number)

    @contextmanager
    def holding(self, request: tuple[str, str]) -> Iterator[Callable[[], Awaitable[None]]]:
        """Inside, such requests of the bot wait. Gives what waits until one has come in."""
        before = len(self.github.calls_to(*request))
        with self.github.holding(*request):
            yield lambda: self.github_until(lambda: len(self.github.calls_to(*request)) > before)

    async def reached(self, gate: str) -> None:
        """Wait until an agent stands `at_gate(gate)`."""
        async with asyncio.timeout(WAIT):
            while True:
                if any(self._homes(f"*/home/at-{gate}")):
                    return
                await asyncio.sleep(0.02)

    def open_gate(self, gate: str) -> None:
        """Let the agent go on that waits `at_gate(gate)`."""
        for home in self._homes("*/home"):
            (home / f"gate-{gate}").touch()

    def _homes(self, pattern: str) -> Iterator[Path]:
        return (self.directory / "bot" / "sandboxes").glob(pattern)

    def _new_bot(self) -> BotProcess:
        environment = {
            **surroundings(os.environ),
            **self.playground.environment(),
            "SANDPIPER_DATA_DIR": str(self.directory / "bot"),
            "SANDPIPER_AGENT_SCRIPTED": "true",
            "SANDPIPER_AGENT_SCRIPTED_PACE": "0",
            "SANDPIPER_DEFAULT_AGENT": "scripted",
            **self.settings,
        }
        return BotProcess(
            BOT,
            environment,
            directory=self.directory,
            log=self.directory / "bot.log",
            health_url=self.playground.health_url,
            say=lambda line: None,
        )


def marker(post: Message) -> str:
    """The idempotency key that a post of the bot carries."""
    metadata = post.metadata or {}
    payload = metadata.get("event_payload", {})
    return str(payload.get("key", "")) if isinstance(payload, Mapping) else ""


def at_gate(gate: str) -> str:
    """A line for the scripted agent: one tool call that lasts until the test opens the gate."""
    return f"!run touch ~/at-{gate}; until test -e ~/gate-{gate}; do sleep 0.05; done"


def serve(port: int) -> str:
    """An agent's server with page.txt, as a line of a message; it is there when the line is done."""
    up = f"python3 -c 'import socket; socket.create_connection((\"127.0.0.1\", {port}))'"
    start = f"python3 -m http.server {port} --bind 127.0.0.1 >~/log 2>&1 &"
    return f"!run echo 'hello people' >page.txt; {start} until {up} 2>/dev/null; do sleep 0.1; done\n"


def previews(r: Rig, root: str) -> list[str]:
    """The links to ports that the thread was given for one person."""
    link = re.compile(r"http://[^ >|]+/\.sandpiper/open\?key=[\w-]+")
    return [found[0] for note in r.notes(root) if (found := link.search(note))]


@asynccontextmanager
async def rig(directory: Path, **settings: str) -> AsyncIterator[Rig]:
    """The playground and the bot, running. Shows the bot's log when a test fails.

    This Slack takes as much as it is told, so that tests don't wait for each other's posts.
    """
    playground = Playground(directory / "github", rates=NO_RATES)
    async with playground, running(Rig(playground, directory, settings)) as made:
        yield made


@asynccontextmanager
async def running(made: Rig) -> AsyncIterator[Rig]:
    """A rig's bot, from its start to the end of all that it has started."""
    try:
        await made.start()
        yield made
    except BaseException:
        print(made.log[-8000:])
        raise
    finally:
        await made.bot.stop()
        await asyncio.shield(end_left_over(made.directory))
