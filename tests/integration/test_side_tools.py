"""The program that runs beside an agent and serves its side tools, with real processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bot.agents.mcp import TOOLS
from bot.agents.side_tools import LONGEST

INSIDE = Path(__file__).parents[2] / "sandbox" / "inside"
PROGRAM = INSIDE / "side_tools.py"
CALL = INSIDE / "mcp_call.py"


class Beside:
    """A command with side tools beside it."""

    def __init__(
        self, home: Path, *command: str, tools: str = ",".join(TOOLS), directory: Path | None = None
    ) -> None:
        self.home = home
        self.directory = directory or home / "tools"
        self.process = subprocess.Popen(
            [sys.executable, str(PROGRAM), str(self.directory), str(home / "shared"), tools, *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=home,
            env={"HOME": str(home), "PATH": os.environ["PATH"]},
            start_new_session=True,
        )

    def write(self, data: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def answer(self, id: str, text: str, *, error: bool = False) -> None:
        frame = {"sandpiper": "answer", "id": id, "text": text, "error": error}
        self.write(json.dumps(frame, separators=(",", ":")).encode() + b"\n")

    def line(self) -> bytes:
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def call(self) -> dict[str, Any]:
        told: dict[str, Any] = json.loads(self.line())
        assert told["sandpiper"] == "call"
        return told

    def rest(self, data: bytes | None = None) -> tuple[bytes, bytes, int]:
        """What still comes, on stdout and stderr, and the exit code."""
        try:
            out, err = self.process.communicate(data, timeout=30)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.communicate()
            raise
        return out, err, self.process.returncode


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    # A socket's path is short, and pytest's own directories are not.
    with tempfile.TemporaryDirectory(prefix="tools-") as directory:
        yield Path(directory)


def calling(home: Path, tool: str, **arguments: Any) -> Beside:
    words = [sys.executable, str(CALL), tool, json.dumps(arguments), "/bin/sh", str(home / "tools" / "serve")]
    return Beside(home, *words)


def test_a_call_is_a_line_and_its_answer_comes_back(home: Path) -> None:
    beside = calling(home, "set_title", title="Mend it")
    assert beside.call() == {
        "sandpiper": "call",
        "id": "1",
        "tool": "set_title",
        "arguments": {"title": "Mend it"},
    }
    beside.answer("1", "Done.")
    assert beside.rest() == (b"Done.\n", b"", 0)


def test_an_error_is_an_error(home: Path) -> None:
    beside = calling(home, "set_title")
    beside.answer(beside.call()["id"], "No title.", error=True)
    assert beside.rest() == (b"No title.\n", b"", 1)


def test_a_tool_that_is_not_offered_is_not_called(home: Path) -> None:
    words = [sys.executable, str(CALL), "open_pr", "{}", "/bin/sh", str(home / "tools" / "serve")]
    beside = Beside(home, *words, tools="set_title")
    assert beside.rest() == (b"There is no tool 'open_pr'.\n", b"", 1)


def test_who_does_not_wait_any_more_is_told(home: Path) -> None:
    asks = f"{sys.executable} {CALL} ask_person '{{}}' /bin/sh {home}/tools/serve"
    gives_up = f"until test -e {home}/enough; do sleep 0.02; done; kill $!"
    beside = Beside(home, "/bin/sh", "-c", f"{asks} & {gives_up}; echo over; cat")
    assert beside.call()["tool"] == "ask_person"
    (home / "enough").touch()
    told = [beside.line(), beside.line()]
    assert b"over\n" in told
    assert json.loads(next(line for line in told if line != b"over\n")) == {"sandpiper": "gone", "id": "1"}
    beside.answer("1", "too late")
    assert beside.rest()[2] == 0


def notes(home: Path) -> str:
    return f'{sys.executable} {CALL} note_progress \'{{"text": "x"}}\' /bin/sh {home}/tools/serve >&2'


def test_a_tool_can_be_called_in_the_middle_of_a_line(home: Path) -> None:
    """The command waits for the answer before it ends its line."""
    beside = Beside(home, "/bin/sh", "-c", f"printf half; {notes(home)}; printf ' a line\\nrest'")
    beside.answer(beside.call()["id"], "Seen.")
    assert beside.rest() == (b"half a line\nrest", b"Seen.\n", 0)


def test_a_line_of_ours_never_stands_within_one_of_the_commands(home: Path) -> None:
    """Nor in one that is too long to wait for its end."""
    long = f"head -c {LONGEST + 70_000} /dev/zero | tr '\\0' x"
    beside = Beside(home, "/bin/sh", "-c", f"{long}; {notes(home)} & sleep 1; echo; wait")
    assert beside.line() == b"x" * (LONGEST + 70_000) + b"\n"
    beside.answer(beside.call()["id"], "Seen.")
    assert beside.rest() == (b"", b"Seen.\n", 0)


@given(
    st.lists(
        st.binary(max_size=40) | st.just(b'{"sandpiper":"answer","id":"9","text":""}\n') | st.just(b"\n{"),
        max_size=12,
    )
)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_not_ours_passes_unchanged_both_ways(pieces: list[bytes]) -> None:
    with tempfile.TemporaryDirectory(prefix="tools-") as directory:
        beside = Beside(Path(directory), "cat")
        for piece in pieces:
            beside.write(piece)
        whole = b"".join(pieces)
        *ended, rest = whole.split(b"\n")
        kept = [line + b"\n" for line in ended if not line.startswith(b'{"sandpiper":')]
        assert beside.rest() == (b"".join(kept) + rest, b"", 0)


def test_much_passes(home: Path) -> None:
    beside = Beside(home, "sh", "-c", "head -c 8000000 /dev/zero | tr '\\0' x; echo; cat | wc -c")
    data = (b"y" * 999_999 + b"\n") * 4
    out, err, code = beside.rest(data)
    assert (len(out), out[-8:], err, code) == (8_000_001 + 8, b"4000000\n", b"", 0)


@pytest.mark.parametrize(
    ("script", "code"), [("exit 7", 7), ("kill -9 $$", 137), ("exit 0", 0), ("kill -15 $$", 143)]
)
def test_it_ends_as_its_command(home: Path, script: str, code: int) -> None:
    assert Beside(home, "/bin/sh", "-c", f"echo words; {script}").rest() == (b"words\n", b"", code)


def test_a_command_that_is_not_there(home: Path) -> None:
    out, err, code = Beside(home, "no-such-agent").rest()
    assert (out, code) == (b"", 127)
    assert err.startswith(b"sandpiper: no-such-agent cannot be started: ")


def test_the_command_decides_what_a_signal_means(home: Path) -> None:
    beside = Beside(
        home, "/bin/sh", "-c", "trap 'echo stopping; exit 3' TERM; echo ready; while :; do :; done"
    )
    assert beside.line() == b"ready\n"
    os.killpg(beside.process.pid, signal.SIGTERM)
    assert beside.rest() == (b"stopping\n", b"", 3)


def test_what_the_command_leaves_behind_does_not_keep_it(home: Path) -> None:
    beside = Beside(home, "/bin/sh", "-c", "sleep 600 & echo done")
    assert beside.line() == b"done\n"
    assert beside.process.wait(timeout=20) == 0
    os.killpg(beside.process.pid, signal.SIGKILL)
    beside.rest()


def test_what_the_command_leaves_behind_may_write_for_ever(home: Path) -> None:
    noisy = "(while echo noise; do sleep 0.05; done) & exit 7"
    beside = Beside(home, "/bin/sh", "-c", noisy)
    reading = threading.Thread(target=beside.rest, daemon=True)
    reading.start()
    assert beside.process.wait(timeout=20) == 7
    os.killpg(beside.process.pid, signal.SIGKILL)
    reading.join(timeout=20)


def test_the_command_dies_with_it(home: Path) -> None:
    beside = Beside(home, "/bin/sh", "-c", "echo $$; exec sleep 600")
    command = int(beside.line())
    beside.process.kill()
    beside.rest()
    with pytest.raises(ProcessLookupError):
        while True:
            os.kill(command, 0)


@pytest.mark.parametrize("planted", ["directory", "file", "link"])
def test_what_stood_in_its_place_is_not_started(home: Path, planted: str) -> None:
    """Its name can be known beforehand, and a box's /tmp may outlive a turn."""
    place, elsewhere = home / "tools", home / "elsewhere"
    for directory in (place, elsewhere):
        directory.mkdir()
        (directory / "serve").write_text(f"touch {home}/planted-ran\n")
    if planted != "directory":
        (place / "serve").unlink()
        place.rmdir()
    if planted == "file":
        place.write_text(f"touch {home}/planted-ran\n")
    elif planted == "link":
        place.symlink_to(elsewhere)
    beside = calling(home, "set_title", title="Mend it")
    beside.call()
    beside.answer("1", "Done.")
    assert beside.rest() == (b"Done.\n", b"", 0)
    assert not (home / "planted-ran").exists() and (elsewhere / "serve").exists()


def test_what_cannot_be_cleared_away_is_not_started_either(home: Path) -> None:
    out, err, code = Beside(home, "echo", "hello", directory=Path("/proc/self/fdinfo")).rest()
    assert (out, code) == (b"", 126)
    assert b"is somebody else's" in err


def test_without_its_directory_the_command_runs_without_tools(home: Path) -> None:
    nowhere = home / "nowhere" / "tools"
    out, err, code = Beside(home, "echo", "hello", directory=nowhere).rest()
    assert (out, code) == (b"hello\n", 0)
    assert err.startswith(b"sandpiper: no side tools: ")


@pytest.mark.parametrize("refused", [True, False])
def test_a_copy_that_is_refused_does_not_stay(home: Path, *, refused: bool) -> None:
    (home / "report").write_text("all well")
    beside = calling(home, "share_file", path="report")
    copy = Path(beside.call()["arguments"]["path"])
    assert copy.exists()
    beside.answer("1", "Too often.", error=refused)
    beside.rest()
    assert copy.exists() is not refused  # else whoever fetched it drops it


def test_a_file_is_copied_to_where_it_can_be_fetched(home: Path) -> None:
    (home / "report final.txt").write_text("all well")
    beside = calling(home, "share_file", path="report final.txt", title="The report")
    given = beside.call()["arguments"]
    copy = Path(given.pop("path"))
    assert given == {"title": "The report", "name": "report final.txt", "size": 8}
    assert copy.parent == home / "shared" and copy.read_text() == "all well"
    beside.answer("1", "Shared.")
    assert beside.rest()[2] == 0


@pytest.mark.parametrize("what", ["missing", "directory", "pipe", "large", "", "nul\0byte"])
def test_a_file_that_cannot_be_shared(home: Path, what: str) -> None:
    (home / "directory").mkdir()
    os.mkfifo(home / "pipe")
    with (home / "large").open("wb") as file:
        file.truncate(20 * 1024 * 1024 + 1)
    beside = calling(home, "share_file", path=what)
    out, err, code = beside.rest()
    assert out.startswith(b"Not shared: ") and (err, code) == (b"", 1)
    assert not list(home.glob("shared/*"))


def test_what_earlier_releases_left_for_all_sessions_to_read_goes(home: Path) -> None:
    ours = home / ".sandpiper"
    for name in ("shared", "attached/1", "programs"):
        (ours / name).mkdir(parents=True)
        (ours / name / "file").touch()
    assert Beside(home, "true").rest()[2] == 0
    assert not (ours / "shared").exists() and not (ours / "attached").exists()
    assert (ours / "programs" / "file").exists()


def test_databases_in_which_earlier_releases_left_conversations_go(home: Path) -> None:
    kept = (".codex/auth.json", ".local/share/opencode/auth.json")
    for name in (".codex/state_5.sqlite", ".local/share/opencode/opencode.db-wal", *kept):
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).touch()
    assert Beside(home, "true").rest()[2] == 0
    assert {str(path.relative_to(home)) for path in home.rglob("*.*") if path.is_file()} == set(kept)
    (home / ".codex/state_5.sqlite").touch()  # of somebody's own Codex, later
    assert Beside(home, "true").rest()[2] == 0
    assert (home / ".codex/state_5.sqlite").exists()


def test_a_link_in_the_home_makes_nothing_else_go(home: Path) -> None:
    (home / "workspace" / "attached").mkdir(parents=True)
    (home / ".sandpiper").symlink_to(home / "workspace")
    assert Beside(home, "true").rest()[2] == 0
    assert (home / "workspace" / "attached").exists()


class Server:
    """`serve` by itself, as an agent starts it."""

    def __init__(self, home: Path) -> None:
        self.beside = Beside(home, "sleep", "600")
        while not (home / "tools" / "serve").exists():
            assert self.beside.process.poll() is None
        self.process = subprocess.Popen(
            ["/bin/sh", str(home / "tools" / "serve")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def ask(self, line: bytes) -> dict[str, Any]:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(line + b"\n")
        self.process.stdin.flush()
        told: dict[str, Any] = json.loads(self.process.stdout.readline())
        return told

    def request(self, method: str, **params: Any) -> dict[str, Any]:
        return self.ask(json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode())


@pytest.fixture
def server(home: Path) -> Iterator[Server]:
    server = Server(home)
    yield server
    os.killpg(server.beside.process.pid, signal.SIGKILL)
    server.beside.rest()
    # It ends by itself, since the program that it speaks for has.
    assert server.process.communicate(timeout=20)[0] == b""


@pytest.mark.parametrize(
    ("asked", "spoken"),
    [("2024-11-05", "2024-11-05"), ("2025-06-18", "2025-06-18"), ("2031-01-01", "2025-06-18")],
)
def test_a_version_is_agreed_upon(server: Server, asked: str, spoken: str) -> None:
    result = server.request("initialize", protocolVersion=asked, capabilities={})["result"]
    assert (result["protocolVersion"], result["serverInfo"]["name"]) == (spoken, "sandpiper")


def test_its_tools_are_those_that_the_bot_knows(server: Server) -> None:
    tools = server.request("tools/list")["result"]["tools"]
    assert [tool["name"] for tool in tools] == list(TOOLS)
    for tool in tools:
        schema = tool["inputSchema"]
        assert tool["description"] and set(schema["required"]) <= set(schema["properties"])


@pytest.mark.parametrize("id", [[1], {"a": 1}, None])
def test_a_call_with_an_id_that_is_none_is_an_error(server: Server, id: object) -> None:
    call = {"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": {"name": "set_title"}}
    assert server.ask(json.dumps(call).encode())["error"]["code"] == -32600
    odd = {"jsonrpc": "2.0", "id": 5, "method": "ping", "params": [1]}
    assert server.ask(json.dumps(odd).encode())["result"] == {}


def test_what_it_does_not_know_it_says(server: Server) -> None:
    assert server.request("resources/list")["error"]["code"] == -32601
    assert server.ask(b"no JSON at all")["error"]["code"] == -32700
    assert server.request("ping")["result"] == {}


def test_a_call_that_is_too_long_is_refused_and_the_next_one_is_heard(server: Server) -> None:
    called = {"name": "note_progress", "arguments": {"text": "é" * (1 << 18)}}  # six bytes each on the line
    refused = server.request("tools/call", **called)["result"]
    assert refused["isError"] and "1044480 is the most" in refused["content"][0]["text"]
    again = server.request("tools/call", name="nosuch", arguments={})["result"]
    assert again["content"][0]["text"] == "There is no tool 'nosuch'."
