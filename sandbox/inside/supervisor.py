"""Keeps one program alive and reachable while whoever started it comes and goes.

    supervisor.py keep --dir DIR            start the program described on stdin, or find it running
    supervisor.py door --root R --port P    pass HTTP requests /p/<key>/… on to the keepers in R/<key>, and
                                            start them: POST /p/<key>/keep, whose body is what `keep` reads;
                                            with --socket PATH also on a unix socket there. GET /port/<n>
                                            leads to that port of the loopback, by a WebSocket
    supervisor.py ctl DIR METHOD TARGET     one request (body on stdin), for those who can only exec

This file stands alone (Python 3.9+, standard library only), for it is copied into boxes.

`keep` reads a JSON object from stdin: argv (required), env, cwd, fence, lease (seconds without a call
after which the program is ended; null: never), grace (seconds between TERM and KILL then), max_spool
(bytes), shield (start it with INT and TERM ignored, for a wrapper whose own child resets them),
directories (made first where they are missing) and handover (text that the program finds on file
descriptor 100). Secrets so travel by pipe and memory, never by argv or disk.

`door` makes a token, keeps it in R/door and prints it; whoever may exec here so finds the door again. It is
another one after the box was restarted. The newest release's door stays: an older one is replaced by it,
under the same token, and keepers of any release are reached through it. Every answer of the door has the
header X-Sandpiper-Door; one without it comes from somebody on the way there.

The keeper answers HTTP on the unix socket DIR/sock:

    GET  /out?fd=1|2&from=N[&wait=S][&max=B][&ack=A]   output; headers X-Next, X-Eof
    POST /in?off=N&fence=F[&eof=1]                     body goes to stdin; idempotent by offset
    POST /signal?sig=INT|TERM|KILL&fence=F             to the whole process group; after KILL, all that has
                                                       left the group ends with the program
    POST /lease?ttl=S&fence=F                          push the orphan deadline
    GET  /status                                       JSON, as every POST answers
    POST /forget                                       only after the end: drop keeper and files

400 bad request · 404 no such place · 409 gap in stdin, or still running · 410 gone: stdin closed or bytes
reclaimed · 412 a newer fence was seen · 413 body too large · 416 beyond the end · 503 try again ·
of the door: 401 another token · 500 the keeper did not start · 502 nothing listens on that port · 507 no
space for a keeper.

The program writes straight to DIR/stdout and DIR/stderr, so output never waits for the keeper. Bytes
below `ack` are given back to the disk. More than max_spool unacknowledged bytes pause the program and what
it has started (SIGSTOP) until they are read. When it has ended, its group is killed (also who has left the
group, if it was killed or is an orphan) and DIR/exit says how; a keeper nobody calls any more then leaves
too, and `ctl` and the door answer from the files.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import ctypes
import fcntl
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

# 2: the door starts keepers and makes its token. 3: it leads to ports. 4: keepers start under a lock. 5: they
# leave nothing of a program that was killed. They answer as in 1.
VERSION = 5
MAX_BODY = 16 << 20  # also the room for stdin that the program has not taken yet
MAX_HEAD = 64 << 10
MAX_READ = 8 << 20
MAX_WAIT = 60.0
START_PATIENCE = 15.0
END_PATIENCE = 5.0
HANDOVER_FD = 100
MAX_FRAME = 1 << 20
WEBSOCKET = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
CONTINUED, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
SPOOLS = {1: "stdout", 2: "stderr"}
FILES = ("sock", "stdout", "stderr", "exit", "keeper", "log", "lock")
SIGNALS = {"INT": signal.SIGINT, "TERM": signal.SIGTERM, "KILL": signal.SIGKILL}

Query = dict[str, str]
Answer = tuple[int, dict[str, str], bytes]


class Refused(Exception):
    """A request that gets an answer other than 200."""

    def __init__(self, status: int, why: str, **more: Any) -> None:
        super().__init__(why)
        self.answer = as_json({"error": why, **more}, status)


def as_json(value: Any, status: int = 200) -> Answer:
    return status, {"Content-Type": "application/json"}, json.dumps(value).encode() + b"\n"


# HTTP, as much of it as is needed: one request per connection, bodies with a length


def read_head(connection: socket.socket) -> tuple[str, str, dict[str, str], bytes]:
    """Method, target, headers in lower case, and the bytes already read after them."""
    data = b""
    while b"\r\n\r\n" not in data:
        more = connection.recv(65536)
        if not more:
            raise EOFError
        data += more
        if len(data) > MAX_HEAD + 65536:
            raise Refused(400, "the request's head is too large")
    head, _, rest = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    pairs = (line.partition(":") for line in lines)
    headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
    words = first.split(" ")
    if len(words) != 3:
        raise Refused(400, "this is not an HTTP request")
    return words[0], words[1], headers, rest


def read_body(connection: socket.socket, headers: dict[str, str], rest: bytes) -> bytes:
    if "transfer-encoding" in headers:
        raise Refused(400, "send a Content-Length, not a chunked body")
    length = int(headers.get("content-length", "0"))
    if not 0 <= length <= MAX_BODY:
        raise Refused(413, f"a body may have {MAX_BODY} bytes")
    if headers.get("expect", "").lower() == "100-continue":
        connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
    body = bytearray(rest[:length])
    while len(body) < length:
        more = connection.recv(min(1 << 20, length - len(body)))
        if not more:
            raise EOFError
        body += more
    return bytes(body)


def write_answer(connection: socket.socket, answer: Answer) -> None:
    status, headers, body = answer
    lines = [f"HTTP/1.1 {status} {'OK' if status == 200 else 'Refused'}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    lines += [f"Content-Length: {len(body)}", "Connection: close", "", ""]
    connection.sendall("\r\n".join(lines).encode() + body)


def serve(listener: socket.socket, handle: Callable[[socket.socket], Answer | None]) -> None:
    """Answer each connection in a thread of its own, forever."""

    def one(connection: socket.socket) -> None:
        with connection:
            try:
                connection.settimeout(120.0)
                try:
                    answer = handle(connection)
                except Refused as no:
                    answer = no.answer
                except (ValueError, KeyError) as error:
                    answer = as_json({"error": f"bad request: {error}"}, 400)
                if answer:
                    write_answer(connection, answer)
            except (EOFError, OSError):
                pass  # the caller is gone; whatever it wanted it asks again

    while True:
        try:
            connection, _ = listener.accept()
        except OSError:  # out of descriptors: those that are open will close
            time.sleep(0.1)
            continue
        threading.Thread(target=one, args=(connection,), daemon=True).start()


def split_target(target: str) -> tuple[str, Query]:
    path, _, query = target.partition("?")
    pairs = (pair.partition("=") for pair in query.split("&") if pair)
    return path, {name: value for name, _, value in pairs}


def connect(directory: Path) -> socket.socket:
    """A connection to the keeper in `directory`. A unix address holds 107 bytes: go by descriptor."""
    link = socket.socket(socket.AF_UNIX)
    try:
        path = str(directory / "sock")
        if len(path.encode()) <= 100:
            link.connect(path)
            return link
        place = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            link.connect(f"/proc/self/fd/{place}/sock")
        finally:
            os.close(place)
        return link
    except BaseException:
        link.close()
        raise


def call(directory: Path, method: str, target: str, body: bytes = b"") -> Answer:
    """One request to the keeper of a directory, or to what it left when it is gone.

    A keeper may leave just now, so one that hangs up is asked again: no verb does anything twice.
    """
    for last in (False, True):
        try:
            return call_keeper(directory, method, target, body)
        except (FileNotFoundError, ConnectionRefusedError):
            break
        except (ConnectionResetError, BrokenPipeError):
            if last:
                raise
    return Remains.answer(directory, method, target)


def call_keeper(directory: Path, method: str, target: str, body: bytes) -> Answer:
    with connect(directory) as link:
        link.settimeout(MAX_WAIT + 30.0)
        link.sendall(f"{method} {target} HTTP/1.1\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        data = bytearray()
        while more := link.recv(1 << 20):
            data += more
    head, _, payload = bytes(data).partition(b"\r\n\r\n")
    if not head:
        raise ConnectionResetError("the keeper closed without an answer")
    first, *lines = head.decode("latin-1").split("\r\n")
    return int(first.split(" ")[1]), dict(line.split(": ", 1) for line in lines), payload


# Files


def write_file(path: Path, value: Any) -> None:
    """Atomically, and kept over a power cut."""
    fresh = path.with_suffix(".new")
    with fresh.open("w", encoding="utf-8") as file:
        json.dump(value, file)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)


def read_file(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return {}


def remove(directory: Path) -> None:
    for name in FILES:
        (directory / name).unlink(missing_ok=True)
        (directory / name).with_suffix(".new").unlink(missing_ok=True)
    directory.rmdir()


def claim(directory: Path) -> int | None:
    """The directory's lock, held as long as the descriptor is open; None: somebody has it."""
    path = directory / "lock"
    lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(lock).st_ino == path.stat().st_ino:  # else it was removed under us
            return lock
    except (BlockingIOError, FileNotFoundError):
        pass
    os.close(lock)
    return None


def birth(pid: int) -> str:
    """When a process started, in the kernel's clock: a pid used again has another birth."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19]
    except OSError:
        return ""


def descendants(root: int) -> dict[int, tuple[str, bool]]:
    """The processes below one: the birth of each, and whether it is over and only was not waited for."""
    children: dict[int, list[tuple[int, str, bool]]] = {}
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            try:
                stat = Path(entry.path, "stat").read_text(encoding="utf-8", errors="replace")
            except OSError:
                continue
            words = stat.rpartition(")")[2].split()
            children.setdefault(int(words[1]), []).append((int(entry.name), words[19], words[0] in "ZX"))
    found: dict[int, tuple[str, bool]] = {}
    parents = [root]
    while parents:
        for pid, born, over in children.get(parents.pop(), ()):
            found[pid] = born, over
            parents.append(pid)
    return found


def adopt() -> None:
    """Where the system can do so: have orphans below us become our children, not those of process 1."""
    set_child_subreaper = 36
    if hasattr(LIBC, "prctl"):
        LIBC.prctl(set_child_subreaper, 1, 0, 0, 0)


def reclaim(fd: int, start: int, end: int) -> None:
    """Give the disk blocks of start..end back; a file system that can't keeps them."""
    keep_size_punch_hole = 0x03
    fallocate = getattr(LIBC, "fallocate64", None) or getattr(LIBC, "fallocate", None)
    if end > start and fallocate:
        fallocate(fd, keep_size_punch_hole, ctypes.c_int64(start), ctypes.c_int64(end - start))


def watch_files(*paths: Path) -> int | None:
    """An inotify descriptor that is readable when one of the files was written to, where there is one."""
    if not hasattr(LIBC, "inotify_init1"):
        return None
    modified = 0x02
    fd = int(LIBC.inotify_init1(os.O_CLOEXEC))
    if fd >= 0 and all(LIBC.inotify_add_watch(fd, bytes(path), modified) >= 0 for path in paths):
        return fd
    return None


LIBC = ctypes.CDLL(None, use_errno=True)


class Spool:
    """One output stream of the program, from its first unacknowledged byte on."""

    def __init__(self, path: Path) -> None:
        self.fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self.acked = 0

    @property
    def size(self) -> int:
        return os.fstat(self.fd).st_size

    def acknowledge(self, upto: int) -> None:
        if upto > self.size:
            raise Refused(416, f"only {self.size} bytes exist")
        if upto > self.acked:
            reclaim(self.fd, self.acked & ~4095, upto & ~4095)
            self.acked = upto

    def read(self, start: int, limit: int) -> bytes:
        return os.pread(self.fd, min(limit, MAX_READ), start)


@contextlib.contextmanager
def starting(root: Path) -> Iterator[int]:
    """Whoever ends the box because nothing runs in it looks under this lock, so that nothing starts between
    its look and the end. One who holds it for longer than that takes is nobody of ours."""
    lock = os.open(root, os.O_RDONLY)
    until = time.monotonic() + START_PATIENCE
    try:
        while time.monotonic() < until:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(0.02)
            except OSError:  # a file system that has no locks
                break
        yield lock
    finally:
        os.close(lock)


class Keeper:
    """Lives beside one program, in its directory."""

    def __init__(self, directory: Path, launch: dict[str, Any]) -> None:
        self.directory = directory
        self.launch = launch
        self.lock = threading.RLock()
        self.output = threading.Condition(self.lock)  # there is more to read, or it ended
        self.input = threading.Condition(self.lock)  # there is more to write
        self.time = threading.Condition(self.lock)  # a deadline moved
        self.child: subprocess.Popen[bytes] | None = None
        paths = {fd: directory / name for fd, name in SPOOLS.items()}
        self.spools = {fd: Spool(path) for fd, path in paths.items()}
        self.inotify = watch_files(*paths.values())
        self.queue: collections.deque[bytes] = collections.deque()
        self.in_offset = self.in_pending = 0
        self.in_eof = self.in_closed = False
        self.fence = int(launch.get("fence") or 0)
        self.max_spool = int(launch.get("max_spool") or 64 << 20)
        self.ttl: float | None = launch.get("lease")
        self.grace = float(launch.get("grace", 10.0))
        self.expires = time.monotonic() + (self.ttl or 0.0)
        self.paused = False
        self.held = 0  # unread bytes when it was paused; more of them mean that somebody goes on
        self.ending = ""  # "lease" once the orphan deadline has passed
        self.to_the_last = False  # somebody wants it to end, so nothing of it shall stay
        self.ended: dict[str, Any] | None = None
        self.started = self.last_input = time.time()

    # the program

    def start(self) -> None:
        """Raises OSError where it could not be written down, and so was not started."""
        keeper, (hear, say) = os.getpid(), os.pipe()
        ignore = signal.SIG_IGN if self.launch.get("shield") else signal.SIG_DFL
        inherited = []
        if self.launch.get("handover") is not None:
            text = os.memfd_create("handover")
            os.write(text, self.launch["handover"].encode())
            os.lseek(text, 0, os.SEEK_SET)
            inherited = [fcntl.fcntl(text, fcntl.F_DUPFD, HANDOVER_FD)]
            os.close(text)

        def in_child() -> None:
            signal.signal(signal.SIGINT, ignore)
            signal.signal(signal.SIGTERM, ignore)
            signal.signal(signal.SIGHUP, signal.SIG_DFL)
            try:  # a program that nobody could find again, on a full disk, must not run
                me = os.getpid()
                write_file(self.directory / "keeper", {"pid": keeper, "child": me, "birth": birth(me)})
            except OSError as error:
                os.write(say, str(error).encode())
                raise

        try:
            for path in self.launch.get("directories", ()):
                Path(path).mkdir(mode=0o700, parents=True, exist_ok=True)
            self.child = subprocess.Popen(
                self.launch["argv"],
                env=self.launch.get("env", {}),
                cwd=self.launch.get("cwd") or "/",
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=self.spools[1].fd,
                stderr=self.spools[2].fd,
                start_new_session=True,
                pass_fds=inherited,
                preexec_fn=in_child,
            )
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            os.set_blocking(hear, False)
            with contextlib.suppress(BlockingIOError):
                raise OSError(os.read(hear, 4096).decode()) from error
            self.finish(127, str(error))
        finally:
            self.launch = {}  # the secrets in it are the program's now
            for fd in (hear, say, *inherited):
                os.close(fd)

    def mind(self, child: subprocess.Popen[bytes]) -> None:
        """Wait for the end, then make sure that nothing of the group is left; nor of those that have left it,
        if it did not end in its own way: it may have meant a server to stay."""
        if hasattr(os, "waitid"):
            os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # keeps the group's number ours
        else:
            child.wait()
        with self.lock:
            self.kill(signal.SIGKILL)
            to_the_last = self.to_the_last
        if to_the_last:
            self.end_descendants()
        with self.lock:
            self.finish(child.wait(), "")
        with contextlib.suppress(ChildProcessError):  # who came to us has ended, and is let go
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass

    def finish(self, code: int, error: str) -> None:
        with self.lock:
            self.ended = {"exit_code": code, "ended_by": self.ending, "error": error, "at": time.time()}
            self.write_end()
            for condition in (self.output, self.input, self.time):
                condition.notify_all()

    def write_end(self) -> None:
        """Where the disk takes it: we answer for it as long as we live, and try again when we leave."""
        with contextlib.suppress(OSError):
            write_file(self.directory / "exit", {**(self.ended or {}), "in_off": self.in_offset})

    def kill(self, number: int) -> None:
        if self.child and not self.ended:
            try:
                os.killpg(self.child.pid, number)
            except (ProcessLookupError, PermissionError):
                pass  # it has just ended

    def feed(self, stdin: IO[bytes]) -> None:
        """Write to the program's stdin as fast as it reads, then close it."""
        while True:
            with self.input:
                while not (self.queue or self.in_eof):
                    self.input.wait()
                chunk = self.queue[0] if self.queue else b""
            try:
                taken = os.write(stdin.fileno(), chunk[:65536]) if chunk else 0
            except BrokenPipeError:
                chunk = b""
            with self.input:
                if not chunk:
                    self.queue.clear()
                    self.in_pending, self.in_closed = 0, True
                    stdin.close()
                    return
                self.in_pending -= taken
                self.queue.popleft()
                if taken < len(chunk):
                    self.queue.appendleft(chunk[taken:])

    def watch(self) -> None:
        """Wake long polls on output; pause a program whose output nobody reads."""
        while True:
            if self.inotify is not None:
                os.read(self.inotify, 65536)
            else:
                time.sleep(0.5)
            with self.lock:
                self.balance()
                self.output.notify_all()
            time.sleep(0.002)  # a program that writes byte by byte shall not keep us busy

    def unread(self) -> int:
        return sum(spool.size - spool.acked for spool in self.spools.values())

    def balance(self) -> None:
        if self.ending or self.ended:
            return
        unread = self.unread()
        if unread > max(self.max_spool, self.held):
            self.paused, self.held = True, unread
            self.kill(signal.SIGSTOP)
            self.signal_descendants(signal.SIGSTOP)
        elif self.paused and unread <= self.max_spool // 2:
            self.resume()

    def resume(self) -> None:
        if self.paused:
            self.paused, self.held = False, 0
            self.kill(signal.SIGCONT)
            self.signal_descendants(signal.SIGCONT)

    def end(self, number: int) -> None:
        """By this signal. From now on who loses its parent comes to us, so that we find it."""
        self.to_the_last = True
        adopt()
        self.kill(number)

    def end_descendants(self) -> None:
        """Look once more after nobody was found: they may start others while we look."""
        until, looks = time.monotonic() + END_PATIENCE, 0
        while looks < 2 and time.monotonic() < until:
            looks = 0 if self.signal_descendants(signal.SIGKILL, os.getpid()) else looks + 1
            time.sleep(0.005)

    def signal_descendants(self, number: int, root: int = 0) -> int:
        """To those that have left the group but may write to the same output; how many live that got it."""
        got = 0
        if self.child and not self.ended and hasattr(signal, "pidfd_send_signal"):
            found = descendants(root or self.child.pid)
            for pid, (born, over) in found.items():
                try:
                    fd = os.pidfd_open(pid)  # so that no other process gets it, who is given this number now
                except OSError:
                    continue
                try:
                    if birth(pid) == born:
                        signal.pidfd_send_signal(fd, number)
                        got += not over
                except OSError:
                    pass  # it has just ended
                finally:
                    os.close(fd)
        return got

    def wait_for_the_end(self) -> None:
        """Returns when it has ended (or was ended as an orphan) and nobody calls any more."""
        with self.time:
            while self.ttl is None or time.monotonic() < self.expires:
                self.time.wait(None if self.ttl is None else self.expires - time.monotonic())
            self.ending = "lease"
            self.resume()
            self.end(signal.SIGTERM)
            self.kill(signal.SIGCONT)
            self.time.wait_for(lambda: self.ended, self.grace)
            self.end(signal.SIGKILL)
            self.time.wait_for(lambda: self.ended)

    # requests

    def handle(self, connection: socket.socket) -> Answer:
        method, target, headers, rest = read_head(connection)
        path, query = split_target(target)
        verbs = {
            "GET /out": self.on_out,
            "GET /status": self.on_status,
            "POST /in": self.on_in,
            "POST /signal": self.on_signal,
            "POST /lease": self.on_lease,
            "POST /forget": self.on_forget,
        }
        verb = verbs.get(method + " " + path)
        if verb is None:
            raise Refused(404, f"no such verb: {method} {path}")
        body = read_body(connection, headers, rest)
        answer = verb(query, body)
        if path == "/forget":
            try:
                write_answer(connection, answer)
            finally:
                os._exit(0)
        return answer

    def slide(self, extra: float = 0.0) -> None:
        if self.ttl is not None:
            self.expires = max(self.expires, time.monotonic() + self.ttl + extra)

    def check_fence(self, query: Query) -> None:
        fence = int(query["fence"])
        if fence < self.fence:
            raise Refused(412, f"fence {fence} is stale: {self.fence} was seen", fence=self.fence)
        self.fence = fence
        self.slide()

    def on_out(self, query: Query, _: bytes) -> Answer:
        spool = self.spools[int(query["fd"])]
        start, limit = int(query["from"]), int(query.get("max", 1 << 20))
        wait = min(float(query.get("wait", 0)), MAX_WAIT)
        until = time.monotonic() + wait
        if start < 0 or limit < 1:
            raise Refused(400, "from and max must be positive")
        with self.output:
            self.slide(wait)
            spool.acknowledge(int(query.get("ack", 0)))
            self.balance()
            if start < spool.acked:
                raise Refused(410, f"bytes below {spool.acked} were acknowledged", acked=spool.acked)
            while not self.ended and spool.size <= start and time.monotonic() < until:
                tick = 1.0 if self.inotify is not None else 0.03
                self.output.wait(min(tick, max(0.0, until - time.monotonic())))
            ended, size = bool(self.ended), spool.size
        if start > size:
            raise Refused(416, f"only {size} bytes exist")
        data = spool.read(start, limit)
        reached = start + len(data)
        headers = {"X-Next": str(reached), "X-Eof": "1" if ended and reached >= size else "0"}
        return 200, {"Content-Type": "application/octet-stream", **headers}, data

    def on_in(self, query: Query, body: bytes) -> Answer:
        offset, eof = int(query["off"]), query.get("eof") == "1"
        with self.input:
            self.check_fence(query)
            if offset > self.in_offset:
                raise Refused(409, f"gap: {self.in_offset} bytes have arrived", in_off=self.in_offset)
            if eof and offset + len(body) < self.in_offset:
                raise Refused(409, f"no end: {self.in_offset} bytes have arrived", in_off=self.in_offset)
            new = body[self.in_offset - offset :]
            over = self.in_closed or self.in_eof or self.ended
            if new and over:
                raise Refused(410, "stdin is closed", in_off=self.in_offset)
            if new or (eof and not over):
                if self.in_pending + len(new) > MAX_BODY:
                    raise Refused(503, f"{self.in_pending} bytes of stdin wait to be read")
                if new:
                    self.queue.append(new)
                self.in_offset += len(new)
                self.in_pending += len(new)
                self.in_eof = eof
                self.last_input = time.time()
                self.input.notify_all()
        return as_json(self.status())

    def on_signal(self, query: Query, _: bytes) -> Answer:
        number = SIGNALS[query["sig"]]
        with self.lock:
            self.check_fence(query)
            self.resume()  # first: after its end, who has left the group can't be found
            # Room to act on it: what a program says on its way out must not stop it again.
            self.held = self.unread() + self.max_spool
            if number == signal.SIGKILL:
                self.end(number)
            else:  # it ends in its own way, and what it leaves may be meant to stay
                self.kill(number)
            self.kill(signal.SIGCONT)  # a pause of its own, or not, it shall hear it
        return as_json(self.status())

    def on_lease(self, query: Query, _: bytes) -> Answer:
        ttl = float(query["ttl"])
        with self.time:
            self.check_fence(query)
            self.ttl, self.expires = ttl, time.monotonic() + ttl
            self.time.notify_all()
        return as_json(self.status())

    def on_status(self, _query: Query, _: bytes) -> Answer:
        return as_json(self.status())

    def on_forget(self, _query: Query, _: bytes) -> Answer:
        with self.lock:
            if not self.ended:
                raise Refused(409, "it is still running")
            status = self.status()
            remove(self.directory)
        return as_json(status)

    def status(self) -> dict[str, Any]:
        with self.lock:
            touched = max(os.fstat(spool.fd).st_mtime for spool in self.spools.values())
            ended = self.ended or {"exit_code": None, "ended_by": self.ending, "error": ""}
            return {
                "version": VERSION,
                "kept": True,
                "running": self.ended is None,
                "paused": self.paused,
                **ended,
                "pid": self.child.pid if self.child else None,
                "in_off": self.in_offset,
                "in_pending": self.in_pending,
                "in_eof": self.in_eof,
                "out": [spool.size for spool in self.spools.values()],
                "acked": [spool.acked for spool in self.spools.values()],
                "fence": self.fence,
                "lease_left": None if self.ttl is None else round(self.expires - time.monotonic(), 3),
                "started_at": self.started,
                "last_activity": max(touched, self.last_input),
            }

    def run(self, listener: socket.socket, ready: Callable[[str], None]) -> None:
        threads: list[Callable[[], None]] = [lambda: serve(listener, self.handle), self.watch]
        child = self.child
        if child and (stdin := child.stdin):
            threads += [lambda: self.mind(child), lambda: self.feed(stdin)]
        for work in threads:
            threading.Thread(target=work, daemon=True).start()
        ready(json.dumps(self.status()))
        self.wait_for_the_end()
        if not (self.directory / "exit").exists():
            self.write_end()
        (self.directory / "sock").unlink(missing_ok=True)  # who comes now asks what we leave


class Remains:
    """What a keeper that is gone has left: how it ended, and output nobody has read."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.end = read_file(directory / "exit")
        kept = read_file(directory / "keeper")
        if kept and not self.end and kept["birth"] and birth(kept["child"]) == kept["birth"]:
            # The keeper was killed: nobody minds this program any more, and stdin said EOF to it.
            try:
                os.killpg(kept["child"], signal.SIGKILL)
            except ProcessLookupError:
                pass

    @classmethod
    def answer(cls, directory: Path, method: str, target: str) -> Answer:
        try:
            path, query = split_target(target)
            if not (directory / "stdout").exists():
                raise Refused(404, "no such process")
            until = time.monotonic() + 2.0
            while (lock := claim(directory)) is None:
                if time.monotonic() > until:
                    raise Refused(503, "the keeper is just starting or leaving")
                time.sleep(0.01)
            try:
                return cls(directory).handle(method, path, query)
            finally:
                os.close(lock)
        except Refused as no:
            return no.answer

    def handle(self, method: str, path: str, query: Query) -> Answer:
        if (method, path) == ("GET", "/status"):
            return as_json(self.status())
        if (method, path) == ("GET", "/out"):
            start, limit = int(query["from"]), int(query.get("max", 1 << 20))
            with self.file(int(query["fd"])).open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                if start > size:
                    raise Refused(416, f"only {size} bytes exist")
                file.seek(start)
                data = file.read(min(limit, MAX_READ))
                eof = file.tell() >= size
            return 200, {"X-Next": str(start + len(data)), "X-Eof": "1" if eof else "0"}, data
        if (method, path) == ("POST", "/forget"):
            status = self.status()
            remove(self.directory)
            return as_json(status)
        raise Refused(410, "the process has ended and its keeper is gone", **self.status())

    def file(self, fd: int) -> Path:
        return self.directory / SPOOLS[fd]

    def status(self) -> dict[str, Any]:
        files = [self.file(fd).stat() for fd in SPOOLS]
        return {
            "version": VERSION,
            "kept": False,
            "running": False,
            "exit_code": None,
            "ended_by": "keeper lost",
            "error": "",
            "in_off": 0,
            **self.end,
            "out": [file.st_size for file in files],
            "last_activity": max(file.st_mtime for file in files),
        }


# Commands


def close_inherited() -> None:
    """Let go of descriptors that our starter left open in us: a process that stays must not hold them."""
    for path in list(Path("/dev/fd").iterdir()):
        if int(path.name) > 2:
            with contextlib.suppress(OSError):
                os.close(int(path.name))


def detach(directory: Path, work: Callable[[Callable[[str], None]], None]) -> str:
    """Run `work` in a process of its own session that outlives us; returns what it says when ready."""
    hear, say = os.pipe()
    first = os.fork()
    if first:
        os.close(say)
        with os.fdopen(hear, encoding="utf-8") as pipe:
            said = pipe.read()
        os.waitpid(first, 0)
        if not said.startswith("{"):
            raise SystemExit(
                f"it did not start: {said}" if said else f"it did not start; see {directory / 'log'}"
            )
        return said
    os.setsid()
    if os.fork():
        os._exit(0)
    waiting = [say]

    def ready(text: str) -> None:
        os.write(say, text.encode())
        os.close(waiting.pop())

    try:
        os.chdir(directory)  # a relative name is short enough for a unix address
        os.umask(0o077)
        nothing = os.open(os.devnull, os.O_RDWR)
        log = os.open("log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        for target, source in ((0, nothing), (1, nothing), (2, log)):
            os.dup2(source, target)
        for fd in {nothing, log, hear} - {0, 1, 2}:
            os.close(fd)
        work(ready)
    except OSError as error:
        if not waiting:
            raise
        ready(str(error))
        os._exit(1)
    os._exit(0)


def keep(directory: Path) -> str:
    """Start the program described on stdin, once per directory; returns its status."""
    launch = json.load(sys.stdin)
    if not launch["argv"]:
        raise SystemExit("argv is empty")
    directory.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with starting(directory.parent) as held:
        return keep_held(directory, launch, held)


def keep_held(directory: Path, launch: dict[str, Any], held: int) -> str:
    """held: a lock of whoever starts, which the keeper must not keep."""
    until = time.monotonic() + START_PATIENCE
    while True:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = claim(directory)  # held by the keeper, as long as it lives
        if lock is not None:
            break
        status, _, body = call(directory, "GET", "/status")
        if status == 200:
            return body.decode()
        if time.monotonic() > until:
            raise SystemExit(f"somebody holds {directory / 'lock'}, but no keeper answers there")
        time.sleep(0.02)
    if (directory / "stdout").exists():
        os.close(lock)
        return call(directory, "GET", "/status")[2].decode()

    def work(ready: Callable[[str], None]) -> None:
        os.close(held)
        listener = socket.socket(socket.AF_UNIX)
        try:
            Path("sock").unlink(missing_ok=True)
            listener.bind("sock")
            listener.listen(64)
            keeper = Keeper(directory, launch)
            keeper.start()
        except OSError:  # a full disk: the next one who asks shall start it
            with contextlib.suppress(OSError):
                remove(directory)
            raise
        keeper.run(listener, ready)

    return detach(directory, work)


class Visit:
    """Somebody at the door who is led to a port of the loopback. By a WebSocket (RFC 6455), which providers'
    proxies let through besides plain requests; no header of theirs reaches what listens there."""

    def __init__(self, connection: socket.socket, headers: dict[str, str], rest: bytes, port: int) -> None:
        """Raises Refused where nothing listens."""
        self.key = headers.get("sec-websocket-key", "")
        if headers.get("upgrade", "").lower() != "websocket" or not self.key:
            raise Refused(400, "a WebSocket leads to a port")
        self.near = connection
        self.read_ahead = rest
        self.sending = threading.Lock()
        try:
            self.far = dial(port)
        except (OSError, OverflowError) as error:
            raise Refused(502, f"nothing listens on port {port}") from error

    def lead(self) -> None:
        """Until one end goes away. Raises OSError, EOFError."""
        from base64 import b64encode
        from hashlib import sha1

        word = sha1(f"{self.key}{WEBSOCKET}".encode()).digest()  # noqa: S324 the protocol wants it
        accepted = b64encode(word).decode()
        lines = ["HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade"]
        lines += [f"Sec-WebSocket-Accept: {accepted}", f"X-Sandpiper-Door: {VERSION}", "", ""]
        with self.far:
            self.near.settimeout(None)
            self.near.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            self.near.sendall("\r\n".join(lines).encode())
            back = threading.Thread(target=self.carry_back, daemon=True)
            back.start()
            try:
                while self.carry_in():
                    pass
            finally:
                with contextlib.suppress(OSError):
                    self.far.shutdown(socket.SHUT_RDWR)
                back.join()

    def carry_in(self) -> bool:
        """One frame; whether more may come."""
        first, second = self.take(2)
        length = second & 127
        if length > 125:
            length = int.from_bytes(self.take(2 if length == 126 else 8), "big")
        if not second & 128 or length > MAX_FRAME:
            raise EOFError
        mask = int.from_bytes(self.take(4) * (length // 4 + 1), "big") >> 8 * (4 - length % 4)
        data = (int.from_bytes(self.take(length), "big") ^ mask).to_bytes(length, "big")
        what = first & 15
        if what == PING:
            self.say(PONG, data)
        elif what in (CONTINUED, TEXT, BINARY):
            self.far.sendall(data)
        return what != CLOSE

    def carry_back(self) -> None:
        try:
            while data := self.far.recv(32768):
                self.say(BINARY, data)
            self.say(CLOSE, b"")
        except OSError:  # one end went away: let the other direction end too
            with contextlib.suppress(OSError):
                self.near.shutdown(socket.SHUT_RDWR)

    def say(self, what: int, data: bytes) -> None:
        size = len(data)
        head = bytes([128 | what, size]) if size < 126 else bytes([128 | what, 126]) + size.to_bytes(2, "big")
        with self.sending:
            self.near.sendall(head + data)

    def take(self, size: int) -> bytes:
        while len(self.read_ahead) < size:
            more = self.near.recv(max(65536, size - len(self.read_ahead)))
            if not more:
                raise EOFError
            self.read_ahead += more
        taken, self.read_ahead = self.read_ahead[:size], self.read_ahead[size:]
        return taken


def dial(port: int) -> socket.socket:
    """Many servers listen on one of the two loopbacks only."""
    try:
        far = socket.create_connection(("127.0.0.1", port), 10.0)
    except OSError:
        far = socket.create_connection(("::1", port), 10.0)
    far.settimeout(None)
    return far


class Door:
    """Passes /p/<key>/… on to the keeper in R/<key>, and starts it, for those who know the token."""

    def __init__(self, root: Path, token: str) -> None:
        self.root = root
        self.token = token.encode()

    def handle(self, connection: socket.socket) -> Answer | None:
        try:
            answer = self.answer(connection)
            if answer is None:
                return None
            status, headers, body = answer
        except Refused as no:
            status, headers, body = no.answer
        except (ValueError, KeyError) as error:
            status, headers, body = as_json({"error": f"bad request: {error}"}, 400)
        return status, {**headers, "X-Sandpiper-Door": str(VERSION)}, body

    def answer(self, connection: socket.socket) -> Answer | None:
        """None: it was more than a request, and is over."""
        from hmac import compare_digest  # brings OpenSSL, which only the door can afford

        method, target, headers, rest = read_head(connection)
        if not compare_digest(headers.get("x-sandpiper-token", "").encode(), self.token):
            raise Refused(401, "the header X-Sandpiper-Token is missing or wrong")
        if target == "/status":
            return as_json({"version": VERSION})
        if port := re.fullmatch(r"/port/(\d{1,5})", target):
            Visit(connection, headers, rest, int(port[1])).lead()
            return None
        found = re.fullmatch(r"/p/([A-Za-z0-9_-][A-Za-z0-9_.-]{0,127})(/.*)", target)
        if found is None:
            raise Refused(404, f"nothing is here: {target}")
        body = read_body(connection, headers, rest)
        if (method, found[2]) == ("POST", "/keep"):
            return self.keep(self.root / found[1], body)
        return call(self.root / found[1], method, found[2], body)

    def keep(self, directory: Path, launch: bytes) -> Answer:
        """By a program of its own: a keeper forked here would share our threads' locks."""
        command = [sys.executable, "-I", "-S", __file__, "keep", "--dir", str(directory)]
        done = subprocess.run(command, input=launch, capture_output=True, check=False)
        if done.returncode:
            why = (
                done.stderr.decode(errors="replace").strip() or f"exit code {done.returncode}"
            ).splitlines()
            raise Refused(507 if "No space left" in why[-1] else 500, why[-1])
        return 200, {"Content-Type": "application/json"}, done.stdout


def door_answers(port: int, token: str) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), 5.0) as link:
            link.sendall(f"GET /status HTTP/1.1\r\nX-Sandpiper-Token: {token}\r\n\r\n".encode())
            return link.recv(64).startswith(b"HTTP/1.1 200 ")
    except OSError:
        return False


def listen_at(path: Path) -> socket.socket:
    """For whoever has the directory, with whatever user id: the token is what is asked for."""
    listener = socket.socket(socket.AF_UNIX)
    path.unlink(missing_ok=True)
    listener.bind(str(path))
    path.chmod(0o666)
    listener.listen(128)
    return listener


def door(root: Path, host: str, port: int, path: str) -> str:
    """Open the door, or find it open. One that is older or does not answer is replaced."""
    import secrets

    token = ""
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    until = time.monotonic() + START_PATIENCE
    while claim(root) is None:  # held by the door, as long as it lives
        other = read_file(root / "door")
        alive = bool(other) and birth(other["pid"]) == other["birth"]
        token = other.get("token", "") if alive else ""
        fit = token and other["version"] >= VERSION and port in (0, other["port"])
        fit = fit and path == other.get("path", "") and (not path or Path(path).is_socket())
        if fit and door_answers(other["port"], token):
            return json.dumps(other)
        if time.monotonic() > until:
            raise SystemExit(f"another door holds {root / 'lock'} and does not leave")
        if alive:
            os.kill(other["pid"], signal.SIGTERM)
        time.sleep(0.05)
    token = token or secrets.token_urlsafe(32)
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((host, port))
    listener.listen(128)
    beside = listen_at(Path(path)) if path else None

    def work(ready: Callable[[str], None]) -> None:
        me = os.getpid()
        where = listener.getsockname()[1]
        mine = {"version": VERSION, "pid": me, "birth": birth(me), "port": where, "token": token}
        mine["path"] = path
        write_file(root / "door", mine)
        ready(json.dumps(mine))
        handle = Door(root, token).handle
        if beside:
            threading.Thread(target=serve, args=(beside, handle), daemon=True).start()
        serve(listener, handle)

    return detach(root, work)


def ctl(directory: Path, method: str, target: str) -> str:
    """One JSON line, safe where bytes get mangled on the way: status, headers, body in base64."""
    from base64 import b64encode

    body = sys.stdin.buffer.read() if method == "POST" else b""
    status, headers, answer = call(directory, method, target, body)
    return json.dumps({"status": status, "headers": headers, "body": b64encode(answer).decode()})


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("keep")
    command.add_argument("--dir", required=True, type=Path)
    command = commands.add_parser("door")
    command.add_argument("--root", required=True, type=Path)
    command.add_argument("--host", default="0.0.0.0")  # noqa: S104 the provider's proxy comes from outside
    command.add_argument("--port", required=True, type=int)
    command.add_argument("--socket", default="")
    command = commands.add_parser("ctl")
    command.add_argument("dir", type=Path)
    command.add_argument("method", choices=("GET", "POST"))
    command.add_argument("target")
    given = parser.parse_args()
    close_inherited()
    if given.command == "keep":
        said = keep(given.dir.absolute())
    elif given.command == "door":
        said = door(given.root.absolute(), given.host, given.port, given.socket)
    else:
        said = ctl(given.dir.absolute(), given.method, given.target)
    print(said.strip())


if __name__ == "__main__":
    main()
