"""Nothing that opens our doors enters a box, a command line, a log or a disk: one whole turn is searched."""

from __future__ import annotations

import base64
import contextlib
import json
import threading
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from tests.e2e.rig import PUSH, Rig, at_gate, rig

pytestmark = pytest.mark.asyncio(loop_scope="module")

# The agent is told backwards what to look for, so that it does not find its own prompt.
SEARCH = r"""
import json, os

home = os.path.expanduser("~")
words = [line.strip()[::-1].encode() for line in open(home + "/words")]
found, files, environments = [], 0, 0


def look(where, data):
    found.extend([where, word.decode()[:9]] for word in words if word in data)


def read(path):
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""


for directory, names, here in os.walk("/"):
    if directory == "/":  # what is no file, and the system's own programs, which nobody writes to
        names[:] = [name for name in names if name not in ("usr", "sys", "proc", "dev")]
    for path in (os.path.join(directory, name) for name in here):
        if os.path.isfile(path):
            look(path, read(path))
            files += 1
for pid in filter(str.isdigit, os.listdir("/proc")):
    for part in ("environ", "cmdline", "comm", "mountinfo", "maps"):
        data = read(f"/proc/{pid}/{part}")
        look(f"/proc/{pid}/{part}", data)
        environments += part == "environ" and bool(data)
json.dump({"found": found, "files": files, "environments": environments}, open(home + "/found.json", "w"))
"""


def doors(running: Rig) -> Mapping[str, str]:
    """All that opens one, by name; of the private key, a line in its middle."""
    opened = {
        "Slack's bot token": running.slack.bot_token,
        "Slack's app token": running.slack.app_token,
        "Slack's signing secret": running.slack.signing_secret,
        "GitHub's webhook secret": running.github.webhook_secret,
        "GitHub's private key": running.github.private_key_pem.splitlines()[10],
    }
    for number, token in enumerate(running.github.installation_tokens):
        login = base64.b64encode(f"x-access-token:{token}".encode()).decode()
        opened |= {f"token {number}": token, f"token {number} as git sends it": login}
    return opened


def finds(running: Rig, texts: Mapping[str, bytes]) -> Sequence[str]:
    """Which secret is in which text."""
    secrets = {name: secret.encode() for name, secret in doors(running).items()}
    assert len(secrets) > 10
    return [
        f"{name} in {where}" for where, text in texts.items() for name in secrets if secrets[name] in text
    ]


def disk(running: Rig) -> Mapping[str, bytes]:
    """Every file of the bot's: database, mirrors, quarantines, bundles, sandboxes, spools."""
    found: dict[str, bytes] = {}
    for path in (running.directory / "bot").rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # some come and go
            if path.is_file() and not path.is_symlink():
                found[str(path)] = path.read_bytes()
    assert any("/mirrors/" in path for path in found)
    return found


class CommandLines(threading.Thread):
    """Every command line on this machine, collected while it runs."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.seen: set[bytes] = set()
        self._over = threading.Event()

    def run(self) -> None:
        while not self._over.wait(0.01):
            for directory in Path("/proc").glob("[0-9]*"):
                try:
                    self.seen.add((directory / "cmdline").read_bytes())
                except OSError:
                    continue  # it has just ended

    @contextlib.contextmanager
    def collected(self) -> Iterator[None]:
        self.start()
        try:
            yield
        finally:
            self._over.set()
            self.join()


@dataclass(frozen=True)
class Searched:
    """What could be found in one turn: in its box, on the host, and on the disk while git pushed."""

    rig: Rig
    root: str
    box: Mapping[str, int | list[str]]
    command_lines: frozenset[bytes]
    pushing: Mapping[str, bytes]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def searched(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Searched]:
    async with rig(tmp_path_factory.mktemp("rig"), SANDPIPER_LOG_LEVEL="debug") as running:
        lines = CommandLines()
        with lines.collected(), running.holding(PUSH) as pushed:
            root = running.mention(
                f"{at_gate('search')}\n!run python3 ~/search.py\n"
                "!run env; cat /proc/*/environ; ps -ef || true\n"
                "!write a.txt a\n!commit Add a\n!answer Done."
            )
            await running.reached("search")
            (home,) = (running.directory / "bot" / "sandboxes").glob("*/home")
            (home / "search.py").write_text(SEARCH)
            (home / "words").write_text("\n".join(secret[::-1] for secret in doors(running).values()))
            running.open_gate("search")
            await pushed()
            pushing = disk(running)
        await running.final(root)
        box = json.loads((home / "found.json").read_text())
        yield Searched(running, root, box, frozenset(lines.seen), pushing)


async def test_the_agent_finds_none_in_its_box(searched: Searched) -> None:
    assert searched.box["found"] == []
    assert searched.box["files"] and searched.box["environments"], "it did look"


async def test_none_is_in_a_command_line_on_the_host(searched: Searched) -> None:
    assert any(b"push\0--porcelain" in line for line in searched.command_lines), "the push was seen"
    assert finds(searched.rig, {repr(line[:80]): line for line in searched.command_lines}) == []


async def test_none_is_on_disk_while_git_pushes_or_afterwards(searched: Searched) -> None:
    assert any("/quarantine-" in path for path in searched.pushing), "the push was under way"
    assert finds(searched.rig, searched.pushing) == []
    assert finds(searched.rig, disk(searched.rig)) == []


async def test_nobody_else_on_the_machine_can_read_what_the_bot_stores(searched: Searched) -> None:
    stored = [path for path in (searched.rig.directory / "bot").iterdir() if path.is_file()]
    assert "sandpiper.db" in {path.name for path in stored}
    assert [path.name for path in stored if path.stat().st_mode & 0o077] == []


async def test_none_is_in_the_log_though_it_tells_everything(searched: Searched) -> None:
    log = searched.rig.log
    assert " DEBUG " in log
    assert finds(searched.rig, {"the log": log.encode()}) == []


async def test_none_is_said_in_the_thread_or_the_pull_request(searched: Searched) -> None:
    running, root = searched.rig, searched.root
    final = await running.final(root)
    posts = {post.ts: f"{post.text} {post.blocks}".encode() for post in running.thread(root)}
    pull = running.pull(final)
    assert finds(running, {**posts, "title": pull.title.encode(), "body": (pull.body or "").encode()}) == []
