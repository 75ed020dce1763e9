"""The first program in a local sandbox: leads its loopback to the egress proxy and runs the command.

    forward.py [--socket PATH --port 3128 [--loopback PORT]… [--shared-loopback PORT]… [--bot PORT]]
               [--entrance PATH] [--env-fd N] [--life-fd N] [--limit NAME=N]… [--adopt] -- CMD ARG…
    forward.py --socket PATH [--bot PORT] --stay FD…

This file stands alone (Python 3.9+, standard library only). It listens on 127.0.0.1:<port> as the HTTP
proxy, and on 127.0.0.1:<loopback> for each service that the operator named, so that its address means the
same inside as outside. Everything goes to the proxy's unix socket, which is tried again for minutes while
the proxy restarts. Without --socket it only prepares and runs the command.

Where programs share a loopback, --port 0 takes a free port for each, and --shared-loopback is for services:
who is the first to need one leaves a process behind (--stay, on listening sockets that it inherits), which
leads there for all of them as long as the box runs. So no program's end cuts another's connection.

--bot: which of these services is the bot's own. It is waited for, a minute, while the bot is started again.

--entrance: listen on this unix socket for who wants to look at a port of this loopback: a line with its
number leads there, after a "+" that says so. The ports above are not led to.

--env-fd: read more environment from this descriptor (NAME=VALUE, a NUL after each), so that secrets stand
in no argv and not in the environment of process 1. --life-fd: a pipe of whoever started us; when nobody holds
its other end any more, all that runs in the box ends (bwrap's own --die-with-parent says nothing of a parent
that died before bwrap could ask for it). --limit: a resource limit (nofile, nproc, fsize, …) for
the command. --adopt: who loses its parent below the command becomes our child, so that whoever ends us
finds it.

The command stays in our process group. INT, TERM and HUP are sent to the whole group by whoever minds it,
so we don't pass them on (the command would get them twice) and don't die of them: we end when the command
does, with its code (128 + N when signal N killed it), and collect any orphans until then.

Every program in a box starts with this one, also the many short ones, so its own start is kept short. What
serves connections is imported with the first of them. `_signal` and `_socket` are the bare halves of signal
and socket: these two make enums of all their names, which takes longer than everything else here.
"""

from __future__ import annotations

import _signal as signal  # type: ignore[import-not-found]
import _socket
import errno
import fcntl
import os
import resource
import select
import struct
import sys
import time
from _thread import start_new_thread

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket

PATIENCE = 300.0  # seconds for which a lost proxy is tried again
BOT_PATIENCE = 60.0  # ... and a bot that is away
BUFFER = 1 << 16
USAGE = (
    "usage: forward.py [--socket PATH --port N [--loopback N]… [--shared-loopback N]… [--bot N]]"
    " [--entrance PATH] [--env-fd N] [--life-fd N] [--limit NAME=N]… [--adopt] -- CMD…,"
    " or --socket PATH [--bot N] --stay FD…"
)


class Options:
    def __init__(self, words: list[str]) -> None:
        self.socket = ""
        self.port = 3128
        self.loopback: list[int] = []
        self.shared_loopback: list[int] = []
        self.stay: list[int] = []
        self.bot = 0
        self.entrance = ""
        self.env_fd = -1
        self.life_fd = -1
        self.limits: list[tuple[str, int]] = []
        self.adopt = False
        while words and words[0] != "--":
            if words[0] == "--adopt":
                self.adopt, words = True, words[1:]
                continue
            name, value, words = words[0], words[1], words[2:]
            if name == "--socket":
                self.socket = value
            elif name == "--port":
                self.port = int(value)
            elif name == "--loopback":
                self.loopback.append(int(value))
            elif name == "--shared-loopback":
                self.shared_loopback.append(int(value))
            elif name == "--stay":
                self.stay.append(int(value))
            elif name == "--bot":
                self.bot = int(value)
            elif name == "--entrance":
                self.entrance = value
            elif name == "--env-fd":
                self.env_fd = int(value)
            elif name == "--life-fd":
                self.life_fd = int(value)
            elif name == "--limit":
                limit, _, number = value.partition("=")
                self.limits.append((limit, int(number)))
            else:
                raise ValueError(f"{name} is unknown")
        self.command = words[1:]
        if not (self.command or self.stay):
            raise ValueError("there is no command")


def raise_loopback() -> None:
    """A fresh network namespace has its loopback interface down, unless whoever made it was kind."""
    get_flags, set_flags, up = 0x8913, 0x8914, 1
    any_socket = _socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM)
    request = struct.pack("16sh22x", b"lo", 0)
    flags = struct.unpack("16sh22x", fcntl.ioctl(any_socket, get_flags, request))[1]
    if not flags & up:
        fcntl.ioctl(any_socket, set_flags, struct.pack("16sh22x", b"lo", flags | up))
    any_socket.close()


def listen(port: int) -> _socket.socket:
    listener = _socket.socket()
    listener.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    listener.listen(128)
    return listener


def accept(listener: _socket.socket, path: str, greeting: bytes, patience: float) -> None:
    """Join each connection to the proxy, forever."""
    select.select([listener], [], [])
    import socket
    import threading

    door = socket.socket(fileno=listener.detach())
    while True:
        try:
            near, _ = door.accept()
        except OSError:  # out of descriptors: those that are open will close
            time.sleep(0.1)
            continue
        threading.Thread(target=serve, args=(near, path, greeting, patience), daemon=True).start()


def way_to(port: int, bot: int) -> tuple[bytes, float]:
    """What the proxy is told to lead to a service, and for how many seconds that is tried."""
    return greeting_of(port), BOT_PATIENCE if port == bot else 0.0


def greeting_of(port: int) -> bytes:
    return f"CONNECT 127.0.0.1:{port} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode()


def adopt() -> None:
    """Where the system can do so: have orphans below us become our children, not those of process 1."""
    import ctypes

    prctl, set_child_subreaper = getattr(ctypes.CDLL(None), "prctl", None), 36
    if prctl:
        prctl(set_child_subreaper, 1, 0, 0, 0)


def leave(ports: list[int], path: str, bot: int) -> None:
    """Have a process on each of these ports that leads to the proxy and stays after us. A port that somebody
    listens on already is theirs: such a process of an earlier program's, or a server of the box's own."""
    doors = []
    for port in ports:
        try:
            doors.append(listen(port))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
    if not doors:
        return
    first = os.fork()
    if first:
        os.waitpid(first, 0)
        for door in doors:
            door.close()
        return
    try:
        os.setsid()
        if os.fork() == 0:
            nothing = os.open(os.devnull, os.O_RDWR)
            for fd in (0, 1, 2):
                os.dup2(nothing, fd)
            words = [sys.executable, "-I", os.path.abspath(__file__), "--socket", path]  # noqa: PTH100
            words += ["--bot", str(bot)]
            for door in doors:
                os.set_inheritable(door.fileno(), True)
                words += ["--stay", str(door.fileno())]
            os.chdir("/")
            # With an environment of its own: in ours are secrets of one program, and it outlives that.
            os.execve(words[0], words, {})  # noqa: S606
    finally:
        os._exit(0)


def stay(doors: list[int], path: str, bot: int) -> None:
    """Lead whoever comes to these listening sockets, until the box ends."""
    for fd in doors:
        door = _socket.socket(fileno=fd)
        start_new_thread(accept, (door, path, *way_to(door.getsockname()[1], bot)))
    while True:
        signal.pause()


def serve(near: socket.socket, path: str, greeting: bytes, patience: float) -> None:
    with near:
        try:
            lead(near, path, greeting, patience)
        except OSError:  # when one end goes away, so does the other
            pass


def open_entrance(path: str) -> _socket.socket | None:
    """None: it cannot be had (a full disk, something in its place), and the command runs without it."""
    entrance = _socket.socket(_socket.AF_UNIX)
    above, name = os.path.split(path)
    try:
        os.makedirs(above, mode=0o700, exist_ok=True)  # noqa: PTH103
        if os.path.lexists(path):
            os.unlink(path)  # noqa: PTH108
        directory = os.open(above, os.O_PATH)  # a socket's path may be 107 bytes, and ours can be longer
        try:
            entrance.bind(f"/proc/self/fd/{directory}/{name}")
        finally:
            os.close(directory)
        entrance.listen(32)
    except OSError:
        entrance.close()
        return None
    return entrance


def close_entrance(path: str) -> None:
    try:
        os.unlink(path)  # noqa: PTH108
    except OSError:
        pass


def admit(entrance: _socket.socket, closed: list[int]) -> None:
    """Join each visitor to the port that they name, forever."""
    select.select([entrance], [], [])
    import socket
    import threading

    door = socket.socket(fileno=entrance.detach())
    while True:
        try:
            near, _ = door.accept()
        except OSError:
            time.sleep(0.1)
            continue
        threading.Thread(target=visit, args=(near, closed), daemon=True).start()


def visit(near: socket.socket, closed: list[int]) -> None:
    with near:
        try:
            named = b""
            while not named.endswith(b"\n") and len(named) < 8 and (byte := near.recv(1)):
                named += byte
            port = int(named)
            if port in closed:
                return
            with dial(port) as far:
                near.sendall(b"+")
                join(near, far)
        except (OSError, ValueError, OverflowError):  # who comes sees that it ends
            pass


def dial(port: int) -> socket.socket:
    """Many servers listen on one of the two loopbacks only."""
    import socket

    try:
        far = socket.create_connection(("127.0.0.1", port), timeout=10)
    except OSError:
        far = socket.create_connection(("::1", port), timeout=10)
    far.settimeout(None)
    return far


def lead(near: socket.socket, path: str, greeting: bytes, patience: float) -> None:
    until = time.monotonic() + patience
    while True:
        try:
            far = reach(path)
        except OSError as error:
            near.sendall(refusal(f"the egress proxy does not answer: {error.strerror}"))
            return
        with far:
            reply = tunnel(far, greeting) if greeting else b"HTTP/1.1 200 "
            if reply.startswith(b"HTTP/1.1 200 "):
                join(near, far)
                return
        if not (patience and reply.startswith(b"HTTP/1.1 502 ")):
            near.sendall(reply)
            return
        if time.monotonic() > until:
            near.sendall(
                refusal("the bot is away, and what comes from it on demand with it: try again later")
            )
            return
        time.sleep(0.5)


def refusal(why: str) -> bytes:
    body = f"sandpiper: {why}\n".encode()
    head = f"HTTP/1.1 502 Bad Gateway\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\n"
    return f"{head}Connection: close\r\n\r\n".encode() + body


def reach(path: str) -> socket.socket:
    import socket

    until = time.monotonic() + PATIENCE
    pause = 0.02
    while True:
        far = socket.socket(socket.AF_UNIX)
        try:
            far.connect(path)
            return far
        except OSError as error:
            far.close()
            waiting = (errno.ENOENT, errno.ECONNREFUSED, errno.EAGAIN)
            if error.errno not in waiting or time.monotonic() > until:
                raise
        time.sleep(pause)
        pause = min(pause * 1.5, 1.0)


def tunnel(far: socket.socket, greeting: bytes) -> bytes:
    """Ask for a tunnel; returns the proxy's answer, all of it when it is a refusal."""
    far.sendall(greeting)
    reply = b""
    while b"\r\n\r\n" not in reply:
        byte = far.recv(1)  # not one more, for what follows belongs to the tunnel
        if not byte:
            return reply
        reply += byte
    if not reply.startswith(b"HTTP/1.1 200 "):
        while more := far.recv(BUFFER):
            reply += more
    return reply


def join(one: socket.socket, other: socket.socket) -> None:
    """Carry bytes both ways until both sides have said all they had to say."""
    import threading

    back = threading.Thread(target=carry, args=(other, one), daemon=True)
    back.start()
    carry(one, other)
    back.join()


def carry(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(BUFFER):
            target.sendall(data)
        target.shutdown(_socket.SHUT_WR)
    except OSError:  # one end went away: let the other direction end too
        for end in (source, target):
            try:
                end.shutdown(_socket.SHUT_RDWR)
            except OSError:
                pass


def environment(options: Options) -> dict[str, str]:
    env = dict(os.environ)
    if options.env_fd >= 0:
        with os.fdopen(options.env_fd, encoding="utf-8", newline="") as file:
            for entry in file.read().split("\0")[:-1]:
                name, _, value = entry.partition("=")
                env[name] = value
    if options.socket:
        proxy = f"http://127.0.0.1:{options.port}"
        for name in ("HTTP_PROXY", "HTTPS_PROXY"):
            env[name] = env[name.lower()] = proxy
        env["NO_PROXY"] = env["no_proxy"] = "localhost,127.0.0.1,::1"
        env["NODE_USE_ENV_PROXY"] = "1"  # Node's own fetch asks for this (24 and later)
    return env


def run(options: Options) -> int:
    # Nothing of the bot's may stay open in the box.
    for name in os.listdir("/dev/fd"):  # noqa: PTH208 importing pathlib costs milliseconds
        if int(name) not in (0, 1, 2, options.env_fd, options.life_fd):
            try:
                os.close(int(name))
            except OSError:
                pass
    if options.life_fd >= 0:
        os.set_inheritable(options.life_fd, False)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    if options.socket:
        raise_loopback()
        listeners: list[tuple[_socket.socket, bytes, float]] = [(listen(options.port), b"", 0.0)]
        options.port = listeners[0][0].getsockname()[1]
        listeners += [(listen(port), *way_to(port, options.bot)) for port in options.loopback]
    env = environment(options)
    if options.socket:
        leave(options.shared_loopback, options.socket, options.bot)
    if options.adopt:  # not before, for who was just left stays after us
        adopt()
    entrance = open_entrance(options.entrance) if options.entrance else None
    child = os.fork()  # before any thread exists
    if child == 0:
        execute(options, env)
    if options.life_fd >= 0:
        start_new_thread(live, (options.life_fd,))
    if options.socket:
        for listener, greeting, patience in listeners:
            start_new_thread(accept, (listener, options.socket, greeting, patience))
    if entrance is not None:
        closed = [options.port, *options.loopback, *options.shared_loopback]
        start_new_thread(admit, (entrance, closed))
    # What stdin holds is the command's; when it closes its end, the writer shall notice.
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    while True:
        pid, status = os.wait()  # also collects the orphans of others when we are process 1
        if pid == child:
            if entrance is not None:
                close_entrance(options.entrance)
            return 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def live(life: int) -> None:
    """End everything in the box when nobody wants it any more."""
    select.select([life], [], [])  # nothing is ever written to it
    with open("/proc/1/comm") as name:  # noqa: PTH123 importing pathlib costs milliseconds
        boxed = name.read() == "bwrap\n"
    if boxed:
        os.kill(-1, signal.SIGKILL)
    os._exit(128 + signal.SIGKILL)


def execute(options: Options, env: dict[str, str]) -> None:
    """In the child: become the command."""
    code = 126
    try:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        for name, value in options.limits:
            limit = getattr(resource, f"RLIMIT_{name.upper()}")
            hard = resource.getrlimit(limit)[1]
            value = value if hard == resource.RLIM_INFINITY else min(value, hard)
            resource.setrlimit(limit, (value, value))
        os.execvpe(options.command[0], options.command, env)  # noqa: S606 that is the whole point
    except (OSError, ValueError, AttributeError) as error:
        why = f"cannot be started: {error}"
        if isinstance(error, FileNotFoundError):
            code = 127
            if is_there(options.command[0], env):
                why = "is there, but not the interpreter or loader that it names"
        sys.stderr.write(f"sandpiper: {options.command[0]} {why}\n")
        sys.stderr.flush()
    finally:
        os._exit(code)


def is_there(program: str, env: dict[str, str]) -> bool:
    places = [""] if "/" in program else os.get_exec_path(env)
    return any(os.path.isfile(os.path.join(place, program)) for place in places)  # noqa: PTH113, PTH118


def main() -> None:
    try:
        options = Options(sys.argv[1:])
    except (ValueError, IndexError) as error:
        raise SystemExit(f"{error}\n{USAGE}") from None
    if options.stay:
        stay(options.stay, options.socket, options.bot)
    code = run(options)
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
