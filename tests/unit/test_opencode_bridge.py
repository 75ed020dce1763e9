"""The bridge to OpenCode's server, driven as the program that it is, before a server of our own making."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

PROGRAM = Path(__file__).parents[2] / "sandbox" / "inside" / "opencode_bridge.py"
PYTHON = [sys.executable, "-I", "-S"]

# What stands in for `opencode serve`: it says where it listens, tells events, and answers what the path asks.
SERVER = """
import base64, http.server, json, os, socketserver, subprocess, sys, threading, time

assert sys.argv[1:] == ["serve", "--hostname", "127.0.0.1", "--port", "0"], sys.argv
wanted = "Basic " + base64.b64encode(f"opencode:{os.environ['OPENCODE_SERVER_PASSWORD']}".encode()).decode()
streams = 0

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def log_message(self, *args): pass
    def answer(self):
        global streams
        if self.headers["Authorization"] != wanted:
            return self.reply(401, {})
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.path == "/event":
            streams += 1
            if MODE == "deaf-first" and streams == 1:
                time.sleep(60)
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.end_headers()
            hello = b'data: {"type": "server.connected", "properties": {"stream": %d}}\\n\\n' % streams
            lines = b'event: message\\ndata: {"type":\\ndata: "two.lines"}\\n\\n: a comment\\n\\n'
            self.wfile.write(hello + lines + b"data: {no\\n\\n")
            self.wfile.flush()
            if MODE == "breaks" and streams == 1:
                self.close_connection = True
                return
            time.sleep(60)
        elif self.path == "/die":
            sys.stderr.write("out of luck\\n"); sys.stderr.flush(); os._exit(7)
        elif self.path == "/child":
            child = subprocess.Popen(["sleep", "300"], start_new_session=True)
            self.reply(200, child.pid)
        elif self.path == "/hang":
            time.sleep(60)
        elif self.path == "/empty":
            self.send_response(204); self.send_header("Content-Length", "0"); self.end_headers()
        elif self.path == "/words":
            data = b"not JSON \\xff"
            self.send_response(500); self.send_header("Content-Length", str(len(data))); self.end_headers()
            self.wfile.write(data)
        else:
            self.reply(200, {"method": self.command, "path": self.path, "body": json.loads(body or b"null")})
    do_GET = do_POST = do_DELETE = answer
    def reply(self, status, body):
        data = json.dumps(body).encode()
        self.send_response(status); self.send_header("Content-Length", str(len(data))); self.end_headers()
        self.wfile.write(data)

class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True

MODE = os.environ.get("MODE", "")
if MODE == "never":
    sys.exit("no disk left")
server = Server(("127.0.0.1", 0), Handler)
print("Warning: something else first", flush=True)
print(f"opencode server listening on http://127.0.0.1:{server.server_port}", flush=True)
print("and more", flush=True)
server.serve_forever()
"""


# The bridge as it is, but with less patience.
HASTY = f"""
import importlib.util, sys
spec = importlib.util.spec_from_file_location("bridge", {str(PROGRAM)!r})
bridge = importlib.util.module_from_spec(spec)
spec.loader.exec_module(bridge)
bridge.FIRST_EVENT = 0.5
sys.exit(bridge.main(sys.argv[1:]))
"""


class Bridge:
    def __init__(self, tmp_path: Path, mode: str = "", command: str = "") -> None:
        server = tmp_path / "opencode"
        server.write_text(f"#!{sys.executable} -ISu\n{textwrap.dedent(SERVER)}")
        server.chmod(0o755)
        self.errors = tmp_path / "stderr"
        with self.errors.open("wb") as errors:
            self.process = subprocess.Popen(
                [
                    *PYTHON,
                    *(["-c", HASTY] if mode == "deaf-first" else [str(PROGRAM)]),
                    command or str(server),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "MODE": mode},
            )
        self.asked = 0

    def ask(self, method: str, path: str = "", body: object = None, **more: Any) -> str:
        self.asked += 1
        frame = {"id": str(self.asked), "method": method, "path": path, "body": body, **more}
        self.write(json.dumps(frame).encode() + b"\n")
        return str(self.asked)

    def write(self, data: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def until(self, met: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            told: dict[str, Any] = json.loads(line)
            if met(told):
                return told
        raise AssertionError(f"it ended: {self.errors.read_text()}")

    def reply(self, id: str) -> dict[str, Any]:
        return self.until(lambda told: told["type"] == "reply" and told["id"] == id)

    def close(self) -> int:
        assert self.process.stdin is not None
        self.process.stdin.close()
        return self.process.wait(20)


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Callable[..., Bridge]]:
    bridges: list[Bridge] = []

    def make(mode: str = "", command: str = "") -> Bridge:
        bridges.append(Bridge(tmp_path, mode, command))
        return bridges[-1]

    yield make
    for bridge in bridges:
        bridge.process.kill()
        bridge.process.wait()
        for pipe in (bridge.process.stdin, bridge.process.stdout):
            assert pipe is not None
            pipe.close()


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_requests_are_made_in_their_order_and_answered_by_their_ids(made: Callable[..., Bridge]) -> None:
    bridge = made()
    first = bridge.ask("POST", "/session", {"title": "ü"})
    second = bridge.ask("GET", "/session/x")
    assert bridge.reply(first)["body"] == {"method": "POST", "path": "/session", "body": {"title": "ü"}}
    assert bridge.reply(second) == {
        "type": "reply",
        "id": second,
        "status": 200,
        "body": {"method": "GET", "path": "/session/x", "body": None},
    }


def test_what_may_not_be_told_is_left_out_of_an_answer(made: Callable[..., Bridge]) -> None:
    bridge = made()
    body = {"providers": [{"id": "lab", "key": "secret", "models": {"m": {"options": {"apiKey": "secret"}}}}]}
    reply = bridge.reply(bridge.ask("POST", "/config/providers", body, without=["key", "options"]))
    assert reply["body"]["body"] == {"providers": [{"id": "lab", "models": {"m": {}}}]}
    assert "secret" not in str(reply)


def test_an_answer_may_be_empty_or_no_json(made: Callable[..., Bridge]) -> None:
    bridge = made()
    empty, words = bridge.ask("GET", "/empty"), bridge.ask("GET", "/words")
    assert bridge.reply(empty) == {"type": "reply", "id": empty, "status": 204, "body": None}
    assert bridge.reply(words) == {"type": "reply", "id": words, "status": 500, "body": "not JSON \ufffd"}


def test_events_come_before_anything_is_asked(made: Callable[..., Bridge]) -> None:
    bridge = made()
    bridge.ask("GET", "/x")
    seen: list[dict[str, Any]] = []
    bridge.until(lambda told: seen.append(told) or told["type"] == "reply")  # type: ignore[func-returns-value]
    assert seen[0] == {"type": "event", "event": {"type": "server.connected", "properties": {"stream": 1}}}


def test_an_event_may_have_several_lines_or_be_no_json(made: Callable[..., Bridge]) -> None:
    bridge = made()
    bridge.until(lambda told: told.get("event") == {"type": "two.lines"})
    bridge.until(lambda told: told.get("raw") == "{no")


def test_a_wait_takes_its_time_and_holds_nothing_up(made: Callable[..., Bridge]) -> None:
    bridge = made()
    bridge.reply(bridge.ask("GET", "/x"))
    start = time.monotonic()
    waiting = bridge.ask("WAIT", seconds=0.4)
    bridge.reply(bridge.ask("GET", "/x"))
    assert time.monotonic() - start < 0.4
    assert bridge.reply(waiting) == {"type": "reply", "id": waiting, "status": 200}
    assert time.monotonic() - start >= 0.4


def test_a_broken_stream_of_events_is_taken_up_again_and_told(made: Callable[..., Bridge]) -> None:
    bridge = made("breaks")
    bridge.until(lambda told: told["type"] == "reconnected")
    assert bridge.until(lambda told: told["type"] == "event")["event"]["properties"] == {"stream": 2}


def test_a_connection_that_says_nothing_is_made_again(made: Callable[..., Bridge]) -> None:
    """One that was made while the server began to listen hung for ten minutes."""
    bridge = made("deaf-first")
    reply = bridge.ask("GET", "/x")
    told = bridge.until(lambda told: True)
    assert told["event"]["properties"] == {"stream": 2}
    bridge.reply(reply)


def test_lines_that_are_no_requests_do_no_harm(made: Callable[..., Bridge]) -> None:
    bridge = made()
    for line in (b"\xff\n", b"[]\n", b'{"method": "GET"}\n', b'{"id": 1, "method": "WAIT"}\n', b"\n"):
        bridge.write(line)
    bridge.reply(bridge.ask("GET", "/x"))
    assert "not a request" in bridge.errors.read_text()


def test_the_death_of_the_server_is_its_own_with_stderr(made: Callable[..., Bridge]) -> None:
    bridge = made()
    bridge.ask("GET", "/die")
    assert bridge.process.wait(20) == 7
    told = bridge.errors.read_text()
    assert "out of luck" in told and "ended with 7" in told


def test_a_server_that_does_not_come_up_is_an_error(made: Callable[..., Bridge]) -> None:
    bridge = made("never")
    assert bridge.process.wait(20) == 1
    told = bridge.errors.read_text()
    assert "no disk left" in told and "ended before it listened" in told


def test_a_program_that_is_not_there_is_127(made: Callable[..., Bridge]) -> None:
    assert made(command="/nowhere/opencode").process.wait(20) == 127


def test_a_plugin_that_nobody_needs_is_not_installed(made: Callable[..., Bridge], tmp_path: Path) -> None:
    bridge = made()
    bridge.reply(bridge.ask("GET"))
    config = tmp_path / ".config/opencode"
    noted = json.loads((config / "package-lock.json").read_text())["packages"][""]["dependencies"]
    assert list(noted) == ["@opencode-ai/plugin"] and list((config / "node_modules").iterdir()) == []


def test_a_configuration_of_the_homes_own_is_left_alone(made: Callable[..., Bridge], tmp_path: Path) -> None:
    config = tmp_path / ".config/opencode"
    config.mkdir(parents=True)
    (config / "opencode.json").write_text("{}")
    bridge = made()
    bridge.reply(bridge.ask("GET"))
    assert [path.name for path in config.iterdir()] == ["opencode.json"]


def test_the_end_of_stdin_ends_the_server_and_what_it_started(made: Callable[..., Bridge]) -> None:
    bridge = made()
    child = int(bridge.reply(bridge.ask("GET", "/child"))["body"])
    assert is_running(child)
    assert bridge.close() == 0
    assert not is_running(child)


def test_what_was_asked_before_the_end_is_still_done(made: Callable[..., Bridge]) -> None:
    bridge = made()
    bridge.reply(bridge.ask("GET", "/x"))
    last = [bridge.ask("GET", f"/{number}") for number in range(20)][-1]
    assert bridge.process.stdin is not None
    bridge.process.stdin.close()
    assert bridge.reply(last)["body"]["path"] == "/19"
    assert bridge.process.wait(20) == 0


def test_a_request_that_hangs_does_not_hold_up_the_end(made: Callable[..., Bridge]) -> None:
    bridge = made()
    bridge.reply(bridge.ask("GET", "/x"))
    bridge.ask("GET", "/hang")
    assert bridge.close() == 0


def test_a_killed_bridge_takes_the_server_with_it(made: Callable[..., Bridge]) -> None:
    bridge = made()
    bridge.reply(bridge.ask("GET", "/x"))
    children = Path(f"/proc/{bridge.process.pid}/task/{bridge.process.pid}/children").read_text().split()
    assert children
    bridge.process.kill()
    bridge.process.wait()
    end = time.monotonic() + 10
    while any(is_running(int(pid)) for pid in children):
        assert time.monotonic() < end
        time.sleep(0.02)


def test_the_password_is_in_no_list_of_processes(made: Callable[..., Bridge]) -> None:
    bridge = made()
    bridge.reply(bridge.ask("GET", "/x"))
    [child] = Path(f"/proc/{bridge.process.pid}/task/{bridge.process.pid}/children").read_text().split()
    env = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
    [password] = [item.partition(b"=")[2] for item in env if item.startswith(b"OPENCODE_SERVER_PASSWORD=")]
    assert len(password) >= 32
    assert password not in Path(f"/proc/{child}/cmdline").read_bytes()
