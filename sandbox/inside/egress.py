"""The only way out of a local sandbox: an HTTP proxy on a unix socket, with an allow-list.

    egress.py start --dir DIR     configuration as JSON on stdin; starts it, or hands it the new rules
    egress.py stop --dir DIR

This file stands alone (Python 3.9+, standard library only). One proxy per sandbox: its rules, its record
of refusals, its life and whatever breaks in it are that sandbox's own. It is a process of its own session,
so an agent keeps its way to the model while the bot restarts.

The configuration: {"allow": ["registry.npmjs.org:443", "*.example.com:443", "*:443"], "loopback":
["127.0.0.1:8791"]}. `allow` names public hosts (`*.` stands for subdomains, `*` for any host; the port is
always named). `loopback` names services on this machine, exactly; nothing else that is private, link-local,
loopback, multicast or a cloud's metadata service can be reached, whatever a name resolves to: a name is
resolved once, and the connection goes to the address that was checked. `shared`, true: programs of any user
id may use the socket, so the directory above DIR/box has to keep strangers out. `uid`: the user and group
that it becomes once it listens, whom DIR has to let pass; 0: it stays who it is.

DIR/box/proxy.sock speaks HTTP: CONNECT, and plain requests with an absolute URI. Mount the directory
DIR/box into the sandbox, never the socket itself, which is another file after a restart. A refusal is a 403
that names the host and the setting that would let it through, if there is one, and a line in
DIR/denied.jsonl, for a host and port once a minute at most. Old lines go when there are many.
"""

# ruff: noqa: UP041  before Python 3.11, asyncio has a TimeoutError of its own

from __future__ import annotations

import argparse
import asyncio
import contextlib
import fcntl
import ipaddress
import json
import os
import re
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

ALLOW_SETTING = "SANDPIPER_EGRESS_ALLOW"
LOOPBACK_SETTING = "SANDPIPER_EGRESS_LOOPBACK"
MAX_HEAD = 64 << 10
MAX_CONNECTIONS = 512
MAX_DENIED = 1000  # lines kept of what was refused: a box must not fill our disk
NOTED_AGAIN = 60.0  # seconds until a host that is refused again has another line
HEAD_TIMEOUT = 60.0
DIAL_TIMEOUT = 20.0
START_PATIENCE = 10.0
LOOK_EVERY = 30.0  # seconds between looks whether our directory still exists

# All public IPv6 addresses begin like this (RFC 4291); what carries an IPv4 address of anybody's choice
# through a translator (::/96, 64:ff9b::/96) does not.
PUBLIC_IPV6 = ipaddress.ip_network("2000::/3")
# Public addresses that are no public service: Azure's host agent, and 6to4, another such translator.
SPECIAL = [ipaddress.ip_network(net) for net in ("168.63.129.16/32", "2002::/16")]

# A server could take other ends of lines, or of names, for the real ones, and so see a Host that we did not.
HEADER = re.compile(r"[\w!#$%&'*+.^`|~-]+:[^\x00-\x08\n-\x1f\x7f]*", re.ASCII)

Resolve = Callable[[str, int], Awaitable["list[str]"]]


class Denied(Exception):
    """The rules say no; the text is one line for whoever asked. setting: what would let it through; "":
    nothing would."""

    def __init__(self, text: str, setting: str = "") -> None:
        super().__init__(text)
        self.setting = setting


class Rules:
    """Raises ValueError with the entry that is wrong."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.allow = [split_host(entry) for entry in config.get("allow", [])]
        self.loopback = {split_host(entry) for entry in config.get("loopback", [])}

    def names(self, host: str, port: int) -> bool:
        return any(port == p and matches(pattern, host) for pattern, p in self.allow)


def split_host(text: str) -> tuple[str, int]:
    host, _, port = text.strip().rpartition(":")
    host = host.strip("[]").rstrip(".").lower()
    named = re.fullmatch(r"[a-z0-9*][a-z0-9._:*-]{0,252}|:[a-f0-9:.]+", host)
    if not named or not re.fullmatch(r"\d{1,5}", port, re.ASCII) or not 0 < int(port) < 65536:
        raise ValueError(f"{text[:300]!r} is not host:port")
    return host, int(port)


def matches(pattern: str, host: str) -> bool:
    below = pattern.startswith("*.") and host.endswith(pattern[1:]) and len(host) >= len(pattern)
    return below or pattern in ("*", host)


def is_public(address: str) -> bool:
    ip = plain(address)
    if ip.version == 6 and ip not in PUBLIC_IPV6:
        return False
    return ip.is_global and not ip.is_multicast and not any(ip in net for net in SPECIAL)


def plain(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """An IPv4 address in IPv6's clothes is an IPv4 address."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    return (ip.version == 6 and ip.ipv4_mapped) or ip


def literal(host: str) -> str:
    """The address that a host is written as, in any form that a resolver takes (127.1, 0x7f000001); "":
    it is a name."""
    with contextlib.suppress(ValueError):
        ipaddress.ip_address(host.partition("%")[0])
        return host
    with contextlib.suppress(OSError):
        return socket.inet_ntoa(socket.inet_aton(host))
    return ""


async def look_up(host: str, port: int) -> list[str]:
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


async def admit(host: str, port: int, rules: Rules, resolve: Resolve) -> list[str]:
    """The addresses that may be dialled for a host, resolved once and checked. Raises Denied, OSError."""
    if (host, port) in rules.loopback:
        addresses = await resolve(host, port)
        inside = [address for address in addresses if ipaddress.ip_address(address).is_loopback]
        if not inside:
            raise Denied(f"{host}:{port} is named as a loopback service but is not on this machine")
        return inside
    address = "127.0.0.1" if f".{host}".endswith(".localhost") else literal(host)
    if address and not is_public(address):
        raise not_public(host, port, [address])
    if not rules.names(host, port):
        text = f"egress to {host}:{port} is not allowed from this sandbox; {ALLOW_SETTING} can allow it"
        raise Denied(text, ALLOW_SETTING)
    addresses = await resolve(host, port)
    public = [address for address in addresses if is_public(address)]
    if not public:
        raise not_public(host, port, addresses)
    return public


def not_public(host: str, port: int, addresses: list[str]) -> Denied:
    here = any(plain(address).is_loopback for address in addresses)
    way = f"; {LOOPBACK_SETTING}=127.0.0.1:{port} can allow a service of this machine" if here else ""
    text = f"{host}:{port} is not a public address, so {ALLOW_SETTING} does not cover it{way}"
    return Denied(text, LOOPBACK_SETTING if here else "")


class Ledger:
    """What was refused and when, in a file that outlives us. Others read it at any time."""

    def __init__(self, path: Path) -> None:
        self.last: dict[tuple[str, int], float] = {}
        known = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
        self.lines = known.splitlines()
        for line in self.lines:
            with contextlib.suppress(ValueError, KeyError, TypeError):  # cut off by a power failure
                entry = json.loads(line)
                self.last[entry["host"], entry["port"]] = float(entry["at"])
        self.file = path.open("ab", buffering=0)  # while we may
        self.whole = known[-1:] in ("", "\n")

    def note(self, host: str, port: int, no: Denied) -> None:
        at = time.time()
        if abs(at - self.last.get((host, port), 0.0)) < NOTED_AGAIN:
            return
        entry = {"host": host, "port": port, "why": str(no), "setting": no.setting, "at": round(at, 3)}
        new = [json.dumps(entry)]
        if len(self.lines) >= MAX_DENIED:  # the older half goes
            new = [*self.lines[MAX_DENIED // 2 :], *new]
            self.lines, self.last = [], {}
            self.file.truncate(0)
        data = "".join(f"{line}\n" for line in (*([] if self.whole else [""]), *new)).encode()
        try:
            self.whole = self.file.write(data) == len(data)
        except OSError:  # a full disk: whoever asked is told all the same, and it is noted another time
            return
        self.last[host, port] = at
        self.lines += new


class Proxy:
    def __init__(self, directory: Path, resolve: Resolve = look_up) -> None:
        self.config = directory / "egress.json"
        self.ledger = Ledger(directory / "denied.jsonl")
        self.resolve = resolve
        self.open = 0
        self.read_at: tuple[int, int] = (0, 0)
        self.current = Rules({})

    def rules(self) -> Rules:
        """As the file says now; it is read again whenever it was replaced."""
        stat = self.config.stat()
        version = (stat.st_ino, stat.st_mtime_ns)
        if version != self.read_at:
            self.read_at = version
            self.current = Rules(json.loads(self.config.read_text(encoding="utf-8")))
        return self.current

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        try:
            if self.open > MAX_CONNECTIONS:
                await answer(writer, 503, f"this sandbox has {MAX_CONNECTIONS} connections open already")
            else:
                await self.one(reader, writer)
        except (OSError, EOFError, asyncio.TimeoutError):
            pass  # one of the two ends went away
        finally:
            self.open -= 1
            writer.close()

    async def one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), HEAD_TIMEOUT)
            request = Request(head)
        except asyncio.LimitOverrunError:
            return await answer(writer, 431, f"a request's head may have {MAX_HEAD} bytes")
        except ValueError as error:
            return await answer(writer, 400, str(error))
        host, port = request.host, request.port
        try:
            addresses = await admit(host, port, self.rules(), self.resolve)
        except Denied as no:
            self.ledger.note(host, port, no)
            return await answer(writer, 403, str(no))
        except (OSError, UnicodeError) as error:
            return await answer(writer, 502, f"{host} cannot be resolved: {error}")
        try:
            far_reader, far_writer = await dial(addresses, port)
        except (OSError, asyncio.TimeoutError) as error:
            return await answer(writer, 502, f"{host}:{port} does not answer: {error or 'timeout'}")
        try:
            if request.tunnel:
                writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            else:
                far_writer.write(request.forwarded)
            await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer))
        finally:
            far_writer.close()
        return None


class Request:
    """The head of a proxy request. Raises ValueError with one line for the asker."""

    def __init__(self, head: bytes) -> None:
        first, *lines = head.decode("latin-1")[:-4].split("\r\n")
        method, _, rest = first.partition(" ")
        target, _, version = rest.partition(" ")
        if not version.startswith("HTTP/1."):
            raise ValueError("this proxy speaks HTTP/1.1: CONNECT, or a request with an absolute URI")
        if not all(map(HEADER.fullmatch, (f"first:{first}", *lines))):
            raise ValueError("this proxy takes lines that end in CRLF, and headers as in `Name: value`")
        self.tunnel = method == "CONNECT"
        if self.tunnel:
            self.host, self.port = split_host(target)
            return
        found = re.fullmatch(r"http://([^/?#@]+)([/?][^#]*)?(#.*)?", target, re.IGNORECASE)
        if not found:
            raise ValueError("this proxy wants CONNECT, or a request with an absolute http:// URI")
        authority, path = found[1], "/" + (found[2] or "").removeprefix("/")
        named = re.search(r":\d+$", authority) is not None
        self.host, self.port = split_host(authority if named else f"{authority}:80")
        # One request per connection, and the Host header is the host that was checked.
        ours = ("proxy-", "connection:", "keep-alive:", "host:")
        kept = [line for line in lines if not line.lower().startswith(ours)]
        out = [f"{method} {path} {version}", f"Host: {authority}", "Connection: close", *kept, "", ""]
        self.forwarded = "\r\n".join(out).encode("latin-1")


async def dial(addresses: list[str], port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    problem: Exception = OSError("no address")
    for address in addresses[:4]:
        try:
            reader, writer = await asyncio.wait_for(asyncio.open_connection(address, port), DIAL_TIMEOUT)
        except (OSError, asyncio.TimeoutError) as error:
            problem = error
            continue
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        return reader, writer
    raise problem


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
    except OSError:
        writer.close()  # so that the other direction ends too


async def answer(writer: asyncio.StreamWriter, status: int, line: str) -> None:
    # Many clients show only the status line of a refused CONNECT, so the reason stands there as well.
    body = f"sandpiper: {line}\n".encode()
    head = f"HTTP/1.1 {status} {line}\r\nContent-Type: text/plain\r\n"
    writer.write(f"{head}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body)
    await writer.drain()


async def listen(directory: Path, ready: Callable[[str], None]) -> None:
    """Serve DIR/box/proxy.sock until it is stopped, or DIR is deleted. Our working directory is DIR/box."""
    proxy = Proxy(directory)
    proxy.rules()
    config = json.loads(proxy.config.read_text(encoding="utf-8"))
    if uid := config.get("uid"):
        # What a look-up imports on its first time, that user may not be able to read.
        with contextlib.suppress(OSError):
            await look_up("localhost", 443)
    # Bound aside and moved into place, so that a client never meets a socket nobody listens on. A
    # relative name, for a unix address holds 107 bytes.
    Path("next.sock").unlink(missing_ok=True)
    server = await asyncio.start_unix_server(proxy.serve, "next.sock", limit=MAX_HEAD)
    if config.get("shared"):
        Path("next.sock").chmod(0o666)
    Path("next.sock").replace("proxy.sock")
    ready(json.dumps({"pid": os.getpid()}))
    if uid:  # nothing was waited for, so nobody was served yet
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    async with server:
        while proxy.config.exists():  # noqa: ASYNC110 the file system rings no bell
            await asyncio.sleep(LOOK_EVERY)


# Commands


def claim(directory: Path) -> int | None:
    """The directory's lock, held as long as the descriptor is open; None: a proxy runs here."""
    lock = os.open(directory / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return lock
    except BlockingIOError:
        os.close(lock)
        return None


def close_inherited() -> None:
    """Let go of descriptors that our starter left open in us: a process that stays must not hold them."""
    for path in list(Path("/dev/fd").iterdir()):
        if int(path.name) > 2:
            with contextlib.suppress(OSError):
                os.close(int(path.name))


def start(directory: Path) -> str:
    config = json.load(sys.stdin)
    Rules(config)  # refuse what is wrong before anything changes
    box = directory / "box"
    box.mkdir(mode=0o700, parents=True, exist_ok=True)
    if config.get("shared"):
        box.chmod(0o755)
    fresh = directory / "egress.json.new"
    fresh.write_text(json.dumps(config), encoding="utf-8")
    if config.get("uid"):
        fresh.chmod(0o644)  # the one who reads it is another user by then
    fresh.replace(directory / "egress.json")
    until = time.monotonic() + START_PATIENCE
    while claim(directory) is None:  # held by the proxy, as long as it lives
        if signalled(directory, 0):
            return (directory / "pid").read_text(encoding="utf-8")
        if time.monotonic() > until:
            raise SystemExit(f"somebody holds {directory / 'lock'}, but no proxy listens there")
        time.sleep(0.02)
    (directory / "pid").unlink(missing_ok=True)
    return detach(directory, box)


def signalled(directory: Path, number: int) -> bool:
    try:
        os.kill(json.loads((directory / "pid").read_text(encoding="utf-8"))["pid"], number)
        return True
    except (OSError, ValueError):
        return False


def detach(directory: Path, box: Path) -> str:
    """Serve in a process of its own session; returns when it listens."""
    hear, say = os.pipe()
    first = os.fork()
    if first:
        os.close(say)
        with os.fdopen(hear, encoding="utf-8") as pipe:
            said = pipe.read()
        os.waitpid(first, 0)
        if not said:
            raise SystemExit(f"the egress proxy did not start; see {directory / 'log'}")
        return said
    os.setsid()
    if os.fork():
        os._exit(0)
    os.chdir(box)
    os.umask(0o077)
    nothing = os.open(os.devnull, os.O_RDWR)
    log = os.open(directory / "log", os.O_WRONLY | os.O_TRUNC | os.O_CREAT, 0o600)
    for target, source in ((0, nothing), (1, nothing), (2, log)):
        os.dup2(source, target)
    for fd in {nothing, log, hear} - {0, 1, 2}:
        os.close(fd)

    def ready(text: str) -> None:
        (directory / "pid.new").write_text(text, encoding="utf-8")
        (directory / "pid.new").replace(directory / "pid")
        os.write(say, text.encode())
        os.close(say)

    asyncio.run(listen(directory, ready))
    os._exit(0)


def stop(directory: Path) -> str:
    until = time.monotonic() + START_PATIENCE
    while directory.is_dir() and claim(directory) is None:
        if time.monotonic() > until:
            raise SystemExit(f"the egress proxy of {directory} does not end")
        signalled(directory, signal.SIGTERM)
        time.sleep(0.02)
    return "{}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("command", choices=("start", "stop"))
    parser.add_argument("--dir", required=True, type=Path)
    given = parser.parse_args()
    close_inherited()
    directory = given.dir.absolute()
    try:
        print(start(directory) if given.command == "start" else stop(directory))
    except ValueError as error:
        raise SystemExit(str(error)) from None


if __name__ == "__main__":
    main()
