"""The way out of a sandbox: the proxy and the forwarder, driven as the programs that they are."""

from __future__ import annotations

import asyncio
import contextlib
import http.server
import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sandbox.inside import egress
from tests.boxes import REQUIRED

INSIDE = Path(__file__).parents[2] / "sandbox" / "inside"
PYTHON = [sys.executable, "-I", "-S"]
UNSHARE = ["unshare", "--user", "--map-root-user", "--net", "--mount"]


def can_unshare() -> bool:
    return subprocess.run([*UNSHARE, "true"], capture_output=True, check=False).returncode == 0


needs_namespaces = pytest.mark.skipif(
    not REQUIRED and not can_unshare(), reason="this machine forbids user namespaces"
)


class Box:
    """A proxy's directory, and the socket as a sandbox sees it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.socket = directory / "box" / "proxy.sock"

    def command(self, verb: str) -> list[str]:
        return [*PYTHON, str(INSIDE / "egress.py"), verb, "--dir", str(self.directory)]

    def start(self, **config: list[str]) -> int:
        """Start it, or give it new rules; returns its pid."""
        done = subprocess.run(
            self.command("start"),
            input=json.dumps(config).encode(),
            capture_output=True,
            check=False,
            timeout=30,
        )
        assert done.returncode == 0, done.stderr.decode()
        return int(json.loads(done.stdout)["pid"])

    def stop(self) -> None:
        subprocess.run(self.command("stop"), check=True, capture_output=True, timeout=30)

    def connect(self) -> socket.socket:
        link = socket.socket(socket.AF_UNIX)
        link.settimeout(20)
        link.connect(str(self.socket))
        return link

    def say(self, head: str, body: bytes = b"") -> str:
        """One request; returns the whole answer."""
        with self.connect() as link:
            link.sendall(head.replace("\n", "\r\n").encode() + b"\r\n\r\n" + body)
            return read_all(link).decode()

    def tunnel(self, target: str) -> socket.socket:
        link = self.connect()
        link.sendall(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
        assert link.recv(4096).startswith(b"HTTP/1.1 200 ")
        return link

    def refused(self) -> list[str]:
        lines = (self.directory / "denied.jsonl").read_text().splitlines()
        return [f"{entry['host']}:{entry['port']}" for entry in map(json.loads, lines)]


def read_all(link: socket.socket) -> bytes:
    data = b""
    while more := link.recv(65536):
        data += more
    return data


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    box = Box(tmp_path / "egress")
    yield box
    box.stop()


class Hello(http.server.BaseHTTPRequestHandler):
    """Answers with what it was asked."""

    def do_GET(self) -> None:
        body = f"{self.command} {self.path} host={self.headers['Host']}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def service() -> Iterator[int]:
    """A service on this machine's loopback; its port."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hello) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


def wait_for(path: Path) -> None:
    until = time.monotonic() + 10
    while not path.exists():
        assert time.monotonic() < until, f"{path} did not appear"
        time.sleep(0.01)


# What is refused


def test_a_host_that_is_not_allowed_is_refused_with_the_setting_that_would_allow_it(box: Box) -> None:
    box.start(allow=["registry.npmjs.org:443"])
    answer = box.say("CONNECT evil.example:443 HTTP/1.1")
    assert answer.startswith("HTTP/1.1 403 ")
    body = answer.partition("\r\n\r\n")[2]
    assert "evil.example:443" in body
    assert "SANDPIPER_EGRESS_ALLOW" in body
    assert body.count("\n") == 1


def test_each_refused_host_is_recorded_once_even_across_a_restart(box: Box) -> None:
    box.start()
    box.say("CONNECT evil.example:443 HTTP/1.1")
    box.say("CONNECT evil.example:443 HTTP/1.1")
    box.stop()
    box.start()
    box.say("CONNECT evil.example:443 HTTP/1.1")
    box.say("GET http://other.example/x HTTP/1.1")
    assert box.refused() == ["evil.example:443", "other.example:80"]


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0.0.0.0",
        "10.0.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "168.63.129.16",
        "100.100.100.200",
        "224.0.0.1",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[fd00:ec2::254]",
        "[64:ff9b::7f00:1]",
    ],
)
def test_private_addresses_are_refused_even_when_every_host_is_allowed(
    box: Box, service: int, host: str
) -> None:
    box.start(allow=[f"*:{service}"])
    answer = box.say(f"CONNECT {host}:{service} HTTP/1.1")
    assert answer.startswith("HTTP/1.1 403 "), answer


def asked(names: dict[str, str]) -> egress.Resolve:
    async def resolve(host: str, port: int) -> list[str]:
        return [names[host]]

    return resolve


MODES = {
    "open": ["*:443"],
    "registries": ["pypi.org:443"],
    "list": ["metadata.example:443", "db.example:443"],
}


@pytest.mark.parametrize("mode", MODES)
async def test_a_private_address_is_refused_by_name_in_each_mode(mode: str) -> None:
    rules = egress.Rules({"allow": [*MODES[mode], "metadata.example:443", "db.example:443"]})
    names = asked({"metadata.example": "169.254.169.254", "db.example": "10.0.0.8"})
    for host in ("metadata.example", "db.example"):
        with pytest.raises(egress.Denied, match="not a public address") as no:
            await egress.admit(host, 443, rules, names)
        assert no.value.setting == ""


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("host", "setting"),
    [
        ("169.254.169.254", ""),
        ("192.168.0.1", ""),
        ("0xa9fea9fe", ""),
        ("fe80::1", ""),
        ("fec0::1", ""),
        ("::169.254.169.254", ""),
        ("127.0.0.1", "SANDPIPER_EGRESS_LOOPBACK"),
        ("127.1", "SANDPIPER_EGRESS_LOOPBACK"),
        ("::1", "SANDPIPER_EGRESS_LOOPBACK"),
        ("localhost", "SANDPIPER_EGRESS_LOOPBACK"),
        ("web.localhost", "SANDPIPER_EGRESS_LOOPBACK"),
    ],
)
async def test_a_private_address_is_refused_by_literal_with_the_setting_if_there_is_one(
    mode: str, host: str, setting: str
) -> None:
    """... and never with the one that would not help."""
    with pytest.raises(egress.Denied, match="not a public address") as no:
        await egress.admit(host, 443, egress.Rules({"allow": MODES[mode]}), asked({}))
    assert no.value.setting == setting


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "address",
    ["::ffff:169.254.169.254", "::ffff:7f00:1", "::ffff:10.0.0.8", "64:ff9b::a9fe:a9fe", "2002:a00:8::1"],
)
async def test_a_private_address_is_refused_in_ipv6_clothes(mode: str, address: str) -> None:
    rules = egress.Rules({"allow": [*MODES[mode], "mapped.example:443"]})
    with pytest.raises(egress.Denied, match="not a public address"):
        await egress.admit(address, 443, rules, asked({}))
    with pytest.raises(egress.Denied, match="not a public address"):
        await egress.admit("mapped.example", 443, rules, asked({"mapped.example": address}))


async def test_a_name_is_resolved_once_and_the_checked_address_is_dialled() -> None:
    answers = iter([["93.184.216.34"], ["127.0.0.1"]])

    async def rebinding(host: str, port: int) -> list[str]:
        return next(answers)

    rules = egress.Rules({"allow": ["rebind.example:443"]})
    assert await egress.admit("rebind.example", 443, rules, rebinding) == ["93.184.216.34"]
    assert next(answers) == ["127.0.0.1"], "the second answer was never asked for"


async def test_of_mixed_addresses_only_the_public_ones_are_dialled() -> None:
    async def mixed(host: str, port: int) -> list[str]:
        return ["10.0.0.8", "93.184.216.34", "::1"]

    rules = egress.Rules({"allow": ["mixed.example:443"]})
    assert await egress.admit("mixed.example", 443, rules, mixed) == ["93.184.216.34"]


async def test_a_loopback_service_whose_name_leads_elsewhere_is_refused() -> None:
    async def elsewhere(host: str, port: int) -> list[str]:
        return ["10.0.0.8"]

    rules = egress.Rules({"loopback": ["model.internal:443"]})
    with pytest.raises(egress.Denied):
        await egress.admit("model.internal", 443, rules, elsewhere)


@pytest.mark.parametrize(
    ("pattern", "host", "port", "allowed"),
    [
        ("example.com:443", "example.com", 443, True),
        ("example.com:443", "example.com", 80, False),
        ("example.com:443", "www.example.com", 443, False),
        ("*.example.com:443", "www.example.com", 443, True),
        ("*.example.com:443", "a.b.example.com", 443, True),
        ("*.example.com:443", "example.com", 443, False),
        ("*.example.com:443", "notexample.com", 443, False),
        ("*:443", "anything.test", 443, True),
        ("*:443", "anything.test", 22, False),
    ],
)
def test_patterns(pattern: str, host: str, port: int, allowed: bool) -> None:
    assert egress.Rules({"allow": [pattern]}).names(host, port) is allowed


@pytest.mark.parametrize(
    ("first", "line"),
    [
        (b"GET http://good.example/ HTTP/1.1", b"X: y\nHost: evil.example"),
        (b"GET http://good.example/ HTTP/1.1", b"X: y\rHost: evil.example"),
        (b"GET http://good.example/ HTTP/1.1", b"X: y\0"),
        (b"GET http://good.example/ HTTP/1.1", b"Host : evil.example"),
        (b"GET http://good.example/ HTTP/1.1", b" evil.example"),
        (b"GET http://good.example/ HTTP/1.1", b"evil.example"),
        (b"GET http://good.example/\nHost:evil.example HTTP/1.1", b"X: y"),
        (b"GET http://good.example:80\n/ HTTP/1.1", b"X: y"),
        (b"GET http://good.example/ HTTP/1.1\nHost: evil.example", b"X: y"),
        (b"GET\n http://good.example/ HTTP/1.1", b"X: y"),
    ],
)
def test_no_server_sees_another_host_than_the_one_that_was_checked(first: bytes, line: bytes) -> None:
    with pytest.raises(ValueError, match="this proxy"):
        egress.Request(first + b"\r\n" + line + b"\r\n\r\n")


def test_headers_and_paths_of_honest_clients_pass() -> None:
    head = "GET http://good.example?a=\u00fc HTTP/1.1\r\nX-A.b_c: \u00fc\ty;\r\nHost: other\r\nEmpty:\r\n\r\n"
    lines = egress.Request(head.encode()).forwarded.decode().split("\r\n")
    assert lines[:2] == ["GET /?a=\u00fc HTTP/1.1", "Host: good.example"]
    assert lines[3:] == ["X-A.b_c: \u00fc\ty;", "Empty:", "", ""]


def test_what_is_not_a_proxy_request_is_refused(box: Box) -> None:
    box.start()
    assert box.say("GET / HTTP/1.1\nHost: x").startswith("HTTP/1.1 400 ")
    assert box.say("CONNECT nonsense HTTP/1.1").startswith("HTTP/1.1 400 ")
    assert box.say("hello").startswith("HTTP/1.1 400 ")
    assert box.say("GET http://user@host/ HTTP/1.1").startswith("HTTP/1.1 400 ")


# What is allowed


def test_a_named_loopback_service_is_reached_and_no_other_port(box: Box, service: int) -> None:
    box.start(loopback=[f"127.0.0.1:{service}"])
    answer = box.say(f"GET http://127.0.0.1:{service}/v1/models?x=1 HTTP/1.1\nHost: spoofed.example")
    assert answer.endswith(f"GET /v1/models?x=1 host=127.0.0.1:{service}")
    assert box.say(f"CONNECT 127.0.0.1:{service + 1} HTTP/1.1").startswith("HTTP/1.1 403 ")
    assert box.say(f"CONNECT localhost:{service} HTTP/1.1").startswith("HTTP/1.1 403 ")


def test_a_tunnel_carries_bytes_both_ways_and_each_end_of_them(box: Box) -> None:
    with socket.create_server(("127.0.0.1", 0)) as far:
        port = far.getsockname()[1]
        box.start(loopback=[f"127.0.0.1:{port}"])
        near = box.tunnel(f"127.0.0.1:{port}")
        there, _ = far.accept()
        with near, there:
            there.settimeout(20)
            near.sendall(b"x" * 300_000)
            near.shutdown(socket.SHUT_WR)
            assert read_all(there) == b"x" * 300_000
            there.sendall(b"late answer")
            there.shutdown(socket.SHUT_WR)
            assert read_all(near) == b"late answer"


def test_a_service_that_does_not_listen_is_a_bad_gateway(box: Box) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    box.start(loopback=[f"127.0.0.1:{port}"])
    assert box.say(f"CONNECT 127.0.0.1:{port} HTTP/1.1").startswith("HTTP/1.1 502 ")


PUBLIC = """
    mount --bind {hosts} /etc/hosts
    ip link set lo up
    ip address add 93.184.216.34/32 dev lo
    {python} -m http.server --bind 93.184.216.34 80 &
    server=$!
    {egress} <{config}
    cat  # until the test is over
    kill $server
"""


@needs_namespaces
def test_an_allowed_public_host_is_reached_by_tunnel_and_by_plain_request(box: Box, tmp_path: Path) -> None:
    """In a network of its own, where a public address is ours and names are what the file says."""
    hosts, config, site = tmp_path / "hosts", tmp_path / "config", tmp_path / "site"
    hosts.write_text("93.184.216.34 public.example denied.example\n10.0.0.7 private.example\n")
    config.write_text(json.dumps({"allow": ["public.example:80", "private.example:80"]}))
    site.mkdir()
    (site / "page").write_text("hello from outside")
    egress_start = " ".join(box.command("start"))
    script = PUBLIC.format(hosts=hosts, python=sys.executable, egress=egress_start, config=config)
    with subprocess.Popen(
        [*UNSHARE, "sh", "-ec", textwrap.dedent(script)],
        cwd=site,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as world:
        assert world.stdout is not None
        while b"pid" not in world.stdout.readline():
            assert world.poll() is None
        until = time.monotonic() + 10
        while " 502 " in (plain := box.say("GET http://public.example/page HTTP/1.1")):
            assert time.monotonic() < until, plain  # its server is still starting
        assert plain.endswith("hello from outside")
        with box.tunnel("public.example:80") as link:
            link.sendall(b"GET /page HTTP/1.0\r\n\r\n")
            assert read_all(link).endswith(b"hello from outside")
        assert box.say("GET http://denied.example/page HTTP/1.1").startswith("HTTP/1.1 403 ")
        assert box.say("GET http://private.example/page HTTP/1.1").startswith("HTTP/1.1 403 ")
        assert box.refused() == ["denied.example:80", "private.example:80"]
        world.communicate()


def test_a_host_is_written_down_again_after_a_minute(box: Box) -> None:
    box.start()
    head = "CONNECT denied.example:443 HTTP/1.1"
    box.say(head)
    box.say(head)
    assert box.refused() == ["denied.example:443"]
    box.stop()
    ledger = box.directory / "denied.jsonl"
    entry = json.loads(ledger.read_text())
    ledger.write_text(json.dumps({**entry, "at": entry["at"] - egress.NOTED_AGAIN}) + "\n")
    box.start()
    box.say(head)
    box.say(head)
    assert box.refused() == ["denied.example:443"] * 2


def test_the_newest_refusals_are_kept_and_a_box_cannot_fill_the_disk(tmp_path: Path) -> None:
    path = tmp_path / "denied.jsonl"
    ledger = egress.Ledger(path)
    with ledger.file:
        for number in range(egress.MAX_DENIED * 2):
            ledger.note(f"h{number}.example", 443, egress.Denied("no"))
            lines = path.read_text().splitlines()
            assert len(lines) <= egress.MAX_DENIED
            assert json.loads(lines[-1])["host"] == f"h{number}.example"
    again = egress.Ledger(path)
    with again.file:
        again.note(f"h{number}.example", 443, egress.Denied("no"))
    assert path.read_text().splitlines() == lines


def test_a_line_that_was_cut_off_swallows_no_other(tmp_path: Path) -> None:
    path = tmp_path / "denied.jsonl"
    path.write_text('{"host": "cut')
    ledger = egress.Ledger(path)
    with ledger.file:
        ledger.note("denied.example", 443, egress.Denied("no"))
    assert json.loads(path.read_text().splitlines()[1])["host"] == "denied.example"


async def heard(proxy: egress.Proxy, request: bytes) -> bytes:
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    async with server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(request)
        answer = await reader.read()
        writer.close()
    return answer


def test_on_a_full_disk_a_refusal_is_answered_and_written_down_when_there_is_room(tmp_path: Path) -> None:
    (tmp_path / "egress.json").write_text("{}")
    proxy = egress.Proxy(tmp_path)
    request = b"CONNECT denied.example:443 HTTP/1.1\r\n\r\n"
    with proxy.ledger.file as room, Path("/dev/full").open("ab", buffering=0) as full:
        proxy.ledger.file = full
        assert asyncio.run(heard(proxy, request)).startswith(b"HTTP/1.1 403 ")
        proxy.ledger.file = room
        assert asyncio.run(heard(proxy, request)).startswith(b"HTTP/1.1 403 ")
    [line] = (tmp_path / "denied.jsonl").read_text().splitlines()
    assert json.loads(line)["host"] == "denied.example"


REDIRECT = """
    import http.server, sys

    class Redirect(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(302)
            self.send_header("Location", "http:/" + self.path)
            self.end_headers()

    http.server.HTTPServer(("93.184.216.34", 80), Redirect).serve_forever()
"""
REDIRECTING = """
    mount --bind {hosts} /etc/hosts
    ip link set lo up
    ip address add 93.184.216.34/32 dev lo
    ip address add 169.254.169.254/32 dev lo
    {python} {server} 2>/dev/null &
    server=$!
    {egress} <{config}
    {python} {forward} --socket {socket} -- {python} -c '{fetch}' || true
    kill $server
"""
FOLLOW = """
import time, urllib.error, urllib.request
for target in ("169.254.169.254/latest", "metadata.example/latest", "10.0.0.8:80/", "[::ffff:10.0.0.8]:80/"):
    while True:
        try:
            urllib.request.urlopen("http://public.example/" + target)
        except urllib.error.HTTPError as error:
            if error.code == 502:  # the server is still starting
                time.sleep(0.05)
                continue
            print(error.code, error.read().decode().strip())
        break
"""


@needs_namespaces
def test_a_private_address_is_refused_by_redirect(box: Box, tmp_path: Path) -> None:
    """The client follows it through the proxy, as any request."""
    hosts, config, server = tmp_path / "hosts", tmp_path / "config", tmp_path / "server.py"
    hosts.write_text("93.184.216.34 public.example\n169.254.169.254 metadata.example\n")
    config.write_text(json.dumps({"allow": ["*:80"]}))
    server.write_text(textwrap.dedent(REDIRECT))
    script = textwrap.dedent(REDIRECTING).format(
        hosts=hosts,
        python=sys.executable,
        server=server,
        egress=" ".join(box.command("start")),
        config=config,
        forward=INSIDE / "forward.py",
        socket=box.socket,
        fetch=FOLLOW,
    )
    env = {**os.environ, "no_proxy": ""}
    done = subprocess.run(
        [*UNSHARE, "sh", "-ec", script], capture_output=True, check=False, env=env, timeout=60
    )
    said = done.stdout.decode().splitlines()[1:]
    assert [line[:4] for line in said] == ["403 "] * 4, done.stdout.decode() + done.stderr.decode()
    assert all("not a public address" in line for line in said)


# Its life


def test_new_rules_are_taken_without_a_restart_and_open_tunnels_stay(box: Box, service: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as far:
        port = far.getsockname()[1]
        pid = box.start(loopback=[f"127.0.0.1:{port}"])
        near = box.tunnel(f"127.0.0.1:{port}")
        there, _ = far.accept()
        with near, there:
            assert box.start(loopback=[f"127.0.0.1:{service}"]) == pid
            assert box.say(f"CONNECT 127.0.0.1:{port} HTTP/1.1").startswith("HTTP/1.1 403 ")
            assert "host=" in box.say(f"GET http://127.0.0.1:{service}/ HTTP/1.1")
            near.sendall(b"still open")
            assert there.recv(100) == b"still open"


def test_rules_that_are_wrong_change_nothing(box: Box, service: int) -> None:
    box.start(loopback=[f"127.0.0.1:{service}"])
    wrong = json.dumps({"allow": ["no-port.example"]}).encode()
    done = subprocess.run(box.command("start"), input=wrong, capture_output=True, check=False)
    assert done.returncode != 0
    assert b"'no-port.example' is not host:port" in done.stderr
    assert "host=" in box.say(f"GET http://127.0.0.1:{service}/ HTTP/1.1")


def test_after_a_kill_it_is_started_again_at_the_same_socket(box: Box, service: int) -> None:
    os.kill(box.start(), signal.SIGKILL)
    box.start(loopback=[f"127.0.0.1:{service}"])
    assert "host=" in box.say(f"GET http://127.0.0.1:{service}/ HTTP/1.1")


def test_it_outlives_whoever_started_it(box: Box, service: int, tmp_path: Path) -> None:
    (tmp_path / "config").write_text(json.dumps({"loopback": [f"127.0.0.1:{service}"]}))
    script = f"{' '.join(box.command('start'))} <{tmp_path / 'config'}; sleep 600"
    with subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE, start_new_session=True) as starter:
        assert starter.stdout is not None
        starter.stdout.readline()
        os.killpg(starter.pid, signal.SIGKILL)
    assert "host=" in box.say(f"GET http://127.0.0.1:{service}/ HTTP/1.1")


def test_it_holds_nothing_that_its_starter_left_open(box: Box) -> None:
    read, write = os.pipe()
    subprocess.run(
        box.command("start"), input=b"{}", pass_fds=[write], check=True, capture_output=True, timeout=30
    )
    os.close(write)
    assert os.read(read, 1) == b"", "everybody has let go of it"
    os.close(read)


def test_a_deep_directory_is_no_obstacle(tmp_path: Path) -> None:
    box = Box(tmp_path / ("d" * 80) / ("e" * 80))
    box.start()
    assert (box.directory / "box" / "proxy.sock").is_socket()
    box.stop()


# The forwarder


def forward(*words: str, **more: Any) -> subprocess.CompletedProcess[bytes]:
    command = [*PYTHON, str(INSIDE / "forward.py"), *words]
    return subprocess.run(command, capture_output=True, check=False, timeout=60, **more)


FETCH = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1]).read().decode())"


@needs_namespaces
def test_a_named_service_has_the_same_address_inside(box: Box, service: int) -> None:
    box.start(loopback=[f"127.0.0.1:{service}"])
    forwarder = [*PYTHON, str(INSIDE / "forward.py"), "--socket", str(box.socket), "--loopback", str(service)]
    fetch = [sys.executable, "-c", FETCH, f"http://127.0.0.1:{service}/v1"]
    done = subprocess.run([*UNSHARE, *forwarder, "--", *fetch], capture_output=True, check=False, timeout=60)
    assert done.stdout.decode().strip() == f"GET /v1 host=127.0.0.1:{service}", done.stderr.decode()


SHARING = """
forward() {{ {forward} --socket {socket} --port 0 --shared-loopback {service} -- "$@"; }}
SECRET=hidden forward true
forward {python} -c '{hold}' &
until test -e held; do sleep 0.01; done
forward {python} -c '{fetch}' http://127.0.0.1:{service}/second
touch go
wait $!
forward {python} -c '{fetch}' http://127.0.0.1:{service}/third
stays=$(grep -lzx "[-]-stay" /proc/[0-9]*/cmdline)
echo "$stays" | wc -l
wc -c <"$(dirname "$stays")/environ"
"""
HOLD = """
import http.client, os, pathlib, time
link = http.client.HTTPConnection("127.0.0.1", {service})
link.connect()
pathlib.Path("held").touch()
while not os.path.exists("go"): time.sleep(0.01)
link.request("GET", "/first")
print(link.getresponse().read().decode())
"""


@needs_namespaces
def test_programs_that_share_a_loopback_share_the_way_to_a_service(
    box: Box, service: int, tmp_path: Path
) -> None:
    """It stays when the program that was the first to need it ends, and has nothing of that one's."""
    box.start(loopback=[f"127.0.0.1:{service}"])
    script = SHARING.format(
        forward=" ".join([*PYTHON, str(INSIDE / "forward.py")]),
        socket=box.socket,
        service=service,
        python=sys.executable,
        hold=HOLD.format(service=service).replace("'", '"'),
        fetch=FETCH,
    )
    alone = [*UNSHARE, "--pid", "--fork", "--mount-proc", "--kill-child"]
    done = subprocess.run(
        [*alone, "sh", "-euc", script], capture_output=True, check=False, cwd=tmp_path, timeout=60
    )
    assert done.stdout.decode().split("\n")[:-1] == [
        f"GET /second host=127.0.0.1:{service}",
        f"GET /first host=127.0.0.1:{service}",
        f"GET /third host=127.0.0.1:{service}",
        "1",
        "0",
    ], done.stderr.decode()


@needs_namespaces
def test_clients_find_the_proxy_in_their_environment(box: Box) -> None:
    box.start()
    forwarder = [*PYTHON, str(INSIDE / "forward.py"), "--socket", str(box.socket), "--port", "3200"]
    fetch = [sys.executable, "-c", FETCH, "https://evil.example/"]
    done = subprocess.run([*UNSHARE, *forwarder, "--", *fetch], capture_output=True, check=False, timeout=60)
    assert done.returncode != 0
    assert b"403 egress to evil.example:443 is not allowed" in done.stderr


@needs_namespaces
def test_the_forwarder_waits_for_a_proxy_that_comes_late(box: Box, service: int, tmp_path: Path) -> None:
    forwarder = [*PYTHON, str(INSIDE / "forward.py"), "--socket", str(box.socket), "--loopback", str(service)]
    fetch = f"touch {tmp_path / 'asking'}; {sys.executable} -c '{FETCH}' http://127.0.0.1:{service}/late"
    with subprocess.Popen([*UNSHARE, *forwarder, "--", "sh", "-c", fetch], stdout=subprocess.PIPE) as inside:
        wait_for(tmp_path / "asking")
        box.start(loopback=[f"127.0.0.1:{service}"])
        out, _ = inside.communicate(timeout=60)
    assert out.decode().startswith("GET /late")


def test_the_forwarder_ends_with_the_code_of_its_command() -> None:
    assert forward("--", "sh", "-c", "exit 7").returncode == 7
    assert forward("--", "sh", "-c", "kill -9 $$").returncode == 137
    missing = forward("--", "no-such-program")
    assert missing.returncode == 127
    assert b"no-such-program" in missing.stderr


def test_a_signal_to_the_group_reaches_the_command_once() -> None:
    script = "trap 'n=$((n+1))' INT; trap 'echo $n; exit 5' TERM; echo ready; while :; do sleep 0.02; done"
    command = [*PYTHON, str(INSIDE / "forward.py"), "--", "sh", "-c", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == b"ready\n"
        os.killpg(running.pid, signal.SIGINT)
        os.killpg(running.pid, signal.SIGTERM)
        assert running.stdout.readline() == b"1\n"
        assert running.wait(20) == 5


def test_an_inherited_ignored_signal_is_restored_for_the_command() -> None:
    script = f"trap '' INT TERM; exec {' '.join(PYTHON)} {INSIDE / 'forward.py'} -- sh -c 'kill -TERM $$'"
    done = subprocess.run(["sh", "-c", script], check=False, timeout=20)
    assert done.returncode == 128 + signal.SIGTERM


def test_environment_comes_by_descriptor() -> None:
    read, write = os.pipe()
    os.write(write, b"API_KEY=secret=\r\n!\0EMPTY=\0")
    os.close(write)
    script = 'printf "%s" "$API_KEY${EMPTY-unset}"'
    with contextlib.closing(os.fdopen(read)):
        done = forward("--env-fd", str(read), "--", "sh", "-c", script, pass_fds=[read])
    assert done.stdout == b"secret=\r\n!"


def test_nothing_but_stdio_is_left_open_for_the_command() -> None:
    read, write = os.pipe()
    done = forward("--", "sh", "-c", "set -- /proc/$$/fd/*; echo $#", pass_fds=[read, write])
    os.close(read)
    os.close(write)
    assert int(done.stdout) <= 4, "0, 1, 2, and what the shell itself opens"


def test_limits_hold_for_the_command() -> None:
    assert forward("--limit", "nofile=77", "--", "sh", "-c", "ulimit -n").stdout == b"77\n"


@needs_namespaces
def test_as_process_one_it_collects_orphans() -> None:
    orphan = "it=$(sleep 0.05 >/dev/null & echo $!); while test -e /proc/$it; do sleep 0.02; done; echo $it"
    alone = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc"]
    forwarder = [*PYTHON, str(INSIDE / "forward.py"), "--", "sh", "-c", f"{orphan}; exit 3"]
    done = subprocess.run([*alone, *forwarder], capture_output=True, check=False, timeout=30)
    assert done.stdout.strip().isdigit() and done.returncode == 3, done.stderr
