"""A program in a real box that follows a redirect of a host that it may reach to one that nobody may."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.rig import rig

METADATA = "169.254.169.254"
SECRET = "the secret of the neighbour"
# curl is what agents use. What it says is put where the test reads it.
FOLLOW = "!run for at in {targets}; do curl -sSL -m 20 http://127.0.0.1:{port}/$at; echo; done >~/seen 2>&1\n"


class _Redirects(BaseHTTPRequestHandler):
    """`/host:port/path` leads to http://host:port/path; the service's own secret is at /secret."""

    def do_GET(self) -> None:
        if self.path == "/secret":
            self.send_response(200)
            self.end_headers()
            self.wfile.write(SECRET.encode())
        else:
            self.send_response(302)
            self.send_header("Location", f"http:/{self.path}")
            self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def services() -> Iterator[tuple[int, int]]:
    """The ports of two of the machine's own services."""
    servers = [HTTPServer(("127.0.0.1", 0), _Redirects) for _ in range(2)]
    for server in servers:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    yield servers[0].server_port, servers[1].server_port
    for server in servers:
        server.shutdown()
        server.server_close()


def private_name() -> str:
    """A name of this machine's that leads to no public address, and that curl asks the proxy for."""
    name = socket.gethostname()
    try:
        found = socket.getaddrinfo(name, 80, socket.AF_INET, socket.SOCK_STREAM)
    except OSError:
        pytest.skip(f"{name} leads nowhere on this machine")
    if name == "localhost" or any(ip_address(address[0]).is_global for *_, address in found):
        pytest.skip(f"{name} is no private name")
    return name


async def test_curl_is_refused_what_a_redirect_leads_to_and_the_thread_hears_of_it(
    tmp_path: Path, services: tuple[int, int]
) -> None:
    named, other = services
    targets = [
        f"{METADATA}/latest/meta-data",
        f"{private_name()}:{other}/secret",
        f"127.0.0.1:{other}/secret",
    ]
    settings = {
        "SANDPIPER_EGRESS_LOOPBACK": f"127.0.0.1:{named}",
        "SANDPIPER_EGRESS_ALLOW": f"{private_name()}:{other}",  # which does not help
    }
    async with rig(tmp_path, **settings) as it:
        reachable = f"!run curl -sS http://127.0.0.1:{named}/secret >~/reached 2>&1\n"
        follow = FOLLOW.format(targets=" ".join(targets), port=named)
        root = it.mention(f"{reachable}{follow}!answer I tried.")
        await it.final(root)
        [home] = (tmp_path / "bot" / "sandboxes").glob("*/home")
        assert (home / "reached").read_text() == SECRET, "the box reaches what the operator named"
        said = (home / "seen").read_text()
        by_address, by_name, by_loopback = filter(None, said.splitlines())
        assert "not a public address" in by_address and "not a public address" in by_name
        assert by_loopback.startswith("curl: (7)"), "that is the box's own loopback, where nobody listens"
        await it.shows(root, f"Not allowed: {METADATA}:80. It is no public address")
        await it.shows(root, f"Not allowed: {private_name()}:{other}. ")
        assert SECRET not in it.picture(root)
