"""The way from a box to the bot's own port: waited for while the bot is started again, and not for ever."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sandbox.inside import egress
from sandbox.inside.forward import lead

PROGRAM = str(Path(egress.__file__))


@pytest.fixture
def port() -> int:
    """One that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.fixture
def proxy(tmp_path: Path, port: int) -> Iterator[Path]:
    """The directory of a proxy that leads to the port."""
    words = (sys.executable, "-I", PROGRAM)
    config = json.dumps({"allow": [], "loopback": [f"127.0.0.1:{port}"]})
    subprocess.run((*words, "start", "--dir", str(tmp_path)), input=config.encode(), check=True)
    yield tmp_path / "box" / "proxy.sock"
    subprocess.run((*words, "stop", "--dir", str(tmp_path)), check=True)


@pytest.fixture
def asked(proxy: Path, port: int) -> Callable[[float], bytes]:
    """What a program in the box reads when it connects to the port and waits."""

    def ask(patience: float) -> bytes:
        greeting = f"CONNECT 127.0.0.1:{port} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode()
        near, program = socket.socketpair()
        with near, program:
            program.shutdown(socket.SHUT_WR)
            lead(near, str(proxy), greeting, patience)
            near.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: program.recv(1 << 16), b""))

    return ask


def test_a_service_of_the_operators_that_is_away_is_told_at_once(asked: Callable[[float], bytes]) -> None:
    assert b"does not answer" in asked(0.0)


def test_a_bot_that_stays_away_is_said_to_be(asked: Callable[[float], bytes]) -> None:
    answer = asked(0.1)
    assert answer.startswith(b"HTTP/1.1 502 ") and b"the bot is away" in answer


def test_a_bot_that_comes_back_is_reached(asked: Callable[[float], bytes], port: int) -> None:
    with socket.create_server(("127.0.0.1", port), backlog=1) as back:
        back.close()  # as a bot that was killed leaves it

    def comes_back() -> None:
        with socket.create_server(("127.0.0.1", port)) as listener:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(b"HTTP/1.1 200 OK\r\n\r\nhello")

    coming = threading.Timer(0.7, comes_back)
    coming.start()
    assert asked(60.0).endswith(b"hello")
    coming.join()
