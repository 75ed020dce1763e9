"""An agent's side tools, beside it in its box. Standard library only, Python 3.9+.

    side_tools.py DIRECTORY SHARED TOOL,… COMMAND [ARGUMENT …]

It runs the command, passes its stdin and stdout on, and makes DIRECTORY with a program `serve` in it: an MCP
server on stdio (mcp_server.py) that the command may start. What is called there becomes a line on stdout,
between two lines of the command's own, and the answer comes as a line on stdin. It has no credentials and
decides nothing.

Lines out:  {"sandpiper": "call", "id": "1", "tool": "set_title", "arguments": {…}}
            {"sandpiper": "gone", "id": "1"}                 nobody waits for that answer any more
Lines in:   {"sandpiper": "answer", "id": "1", "text": "…", "error": false}
A call of `share_file` carries its file's copy in SHARED as `path`, beside `name` and `size`; one of
`share_port` a unix socket there as `path`, which leads to the port.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import secrets
import select
import shlex
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

OURS = b'{"sandpiper":'
PIECES = re.compile(rb"[^\n]*\n|[^\n]+")
CHUNK = 1 << 16
LONGEST = 1 << 20  # bytes of one line of ours
LARGEST_FILE = 20 * 1024 * 1024
DRAIN = 0.5  # seconds for output that is still on its way when the command has ended
PR_SET_PDEATHSIG = 1


class Output:
    """Our stdout, of which the command has whole lines and we have whole lines."""

    def __init__(self) -> None:
        self.between_lines = threading.Lock()

    def write(self, data: bytes) -> None:
        while data:
            data = data[os.write(1, data) :]

    def say(self, what: str, **more: Any) -> None:
        line = json.dumps({"sandpiper": what, **more}, separators=(",", ":")).encode()
        with self.between_lines:
            self.write(line + b"\n")


class Calls:
    """What waits for an answer: calls of every `serve` by numbers of ours."""

    def __init__(self, output: Output, tools: str, shared: str) -> None:
        self.output = output
        self.shared = shared
        self.tools = tools.split(",")
        self.lock = threading.Lock()
        self.waiting: dict[str, tuple[Any, Any, str]] = {}  # who called, its id of that, what was made for it
        self.count = 0

    def call(self, client: Any, id: Any, name: str, arguments: dict[str, Any]) -> None:
        if name not in self.tools:
            answer(client, id, f"There is no tool {name!r}.", True)
            return
        made = ""
        try:
            if name == "share_file":
                arguments = {**arguments, **copy_of(arguments.get("path"), self.shared)}
                made = arguments["path"]
            elif name == "share_port":
                arguments = {**arguments, "path": way_to(arguments.get("port"), self.shared)}
                made = arguments["path"]
        except (OSError, ValueError) as error:
            answer(client, id, f"Not shared: {error}", True)
            return
        with self.lock:
            self.count += 1
            number = str(self.count)
            self.waiting[number] = (client, id, made)
        self.output.say("call", id=number, tool=name, arguments=arguments)

    def answered(self, line: bytes) -> None:
        try:
            told = json.loads(line)
            text, error = str(told["text"]), bool(told.get("error"))
            with self.lock:
                client, id, made = self.waiting.pop(told["id"])
            if error and made:  # nobody fetches it: each would stay there
                Path(made).unlink(missing_ok=True)
            answer(client, id, text, error)
        except (ValueError, KeyError, TypeError, OSError):
            return  # answered before, or nothing of ours

    def gone(self, client: Any, id: Any = None) -> None:
        with self.lock:
            lost = [n for n, (of, its, _) in self.waiting.items() if of is client and id in (None, its)]
            for number in lost:
                del self.waiting[number]
        for number in lost:
            self.output.say("gone", id=number)


def answer(client: Any, id: Any, text: str, error: bool) -> None:
    try:
        client.sendall(json.dumps({"id": id, "text": text, "error": error}).encode() + b"\n")
    except OSError:
        pass  # it has ended


def copy_of(path: Any, shared: str) -> dict[str, Any]:
    """A copy, where it can be fetched from. Raises OSError, ValueError."""
    if not isinstance(path, str) or not path or "\0" in path:
        raise ValueError("a path is needed.")
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:  # no waiting for a pipe
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ValueError(f"{path} is no regular file.")
        data = file.read(LARGEST_FILE + 1)
    if len(data) > LARGEST_FILE:
        raise ValueError(f"{path} is larger than {LARGEST_FILE // (1024 * 1024)} MB.")
    copy = fresh_name(shared)
    copy.write_bytes(data)
    return {"path": str(copy), "name": Path(path).name, "size": len(data)}


def fresh_name(shared: str) -> Path:
    """Raises OSError, ValueError."""
    if not shared:
        raise ValueError("there is no place for it here.")
    directory = Path(shared)
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    return directory / secrets.token_hex(8)


def way_to(port: Any, shared: str) -> str:
    """A socket from where the port is reached. Raises OSError, ValueError."""
    if not isinstance(port, int) or not 0 < port < 65536:
        raise ValueError("a port is needed.")
    socket.create_connection(("127.0.0.1", port), timeout=5).close()  # or it would be a link to nothing
    path = fresh_name(shared)
    listener = socket.socket(socket.AF_UNIX)
    directory = os.open(path.parent, os.O_PATH)  # a socket's path may be 107 bytes, and ours is longer
    try:
        listener.bind(f"/proc/self/fd/{directory}/{path.name}")
    finally:
        os.close(directory)
    listener.listen(32)
    threading.Thread(target=lead, args=(listener, port), daemon=True).start()
    return str(path)


def lead(listener: socket.socket, port: int) -> None:
    while True:
        near, _ = listener.accept()
        try:
            far = socket.create_connection(("127.0.0.1", port), timeout=10)
        except OSError:
            near.close()
            continue
        far.settimeout(None)
        for ends in ((near, far), (far, near)):
            threading.Thread(target=splice, args=ends, daemon=True).start()


def splice(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(CHUNK):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:  # one end went away: let the other direction end too
        for end in (source, target):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


def clear(directory: Path) -> None:
    """Make room. In a box whose /tmp outlives a program, an earlier turn can have put a `serve` of its own
    where ours is going to be, and the command would start that. Raises OSError."""
    if directory.is_dir() and not directory.is_symlink():
        shutil.rmtree(directory)
    else:
        directory.unlink(missing_ok=True)


def offer(directory: Path, tools: str, calls: Calls) -> None:
    """Make the directory, listen in it, and put `serve` there. Raises OSError."""
    directory.mkdir(0o700)
    path = directory / "socket"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(8)
    threading.Thread(target=accept, args=(listener, calls), daemon=True).start()
    words = [
        sys.executable,
        "-I",
        "-S",
        str(Path(__file__).absolute().parent / "mcp_server.py"),
        str(path),
        tools,
    ]
    program = directory / "serve"
    program.write_text(f"#!/bin/sh\nexec {shlex.join(words)}\n", encoding="utf-8")
    program.chmod(0o700)


def accept(listener: socket.socket, calls: Calls) -> None:
    while True:
        client, _ = listener.accept()
        threading.Thread(target=hear, args=(client, calls), daemon=True).start()


def hear(client: socket.socket, calls: Calls) -> None:
    with client, client.makefile("rb") as lines:
        while line := lines.readline(LONGEST):
            try:
                if not line.endswith(b"\n"):  # what follows is its rest
                    break
                told = json.loads(line)
                if told.get("gone"):
                    calls.gone(client, told["id"])
                else:
                    calls.call(client, told["id"], str(told["tool"]), dict(told["arguments"]))
            except (ValueError, KeyError, TypeError, AttributeError):
                break
    calls.gone(client)


def pass_in(command: subprocess.Popen[bytes], calls: Calls) -> None:
    """Our stdin to the command, but for answers. A long line is passed on as it comes."""
    target = command.stdin.fileno() if command.stdin else -1
    held: bytes | None = b""  # a line that may be an answer; None: within one that is not
    try:
        while data := os.read(0, CHUNK):
            for piece in PIECES.findall(data):
                if held is not None:
                    held += piece
                    if held.startswith(OURS) and held.endswith(b"\n"):
                        calls.answered(held)
                        held = b""
                        continue
                    if OURS.startswith(held) or (held.startswith(OURS) and len(held) < LONGEST):
                        continue
                    piece, held = held, None
                write_all(target, piece)
                held = b"" if piece.endswith(b"\n") else held
        write_all(target, held or b"")
    except OSError:
        pass  # the command does not listen any more
    if command.stdin:
        try:
            command.stdin.close()
        except OSError:
            pass


def write_all(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]


def pass_out(command: subprocess.Popen[bytes], output: Output, ended: threading.Event) -> None:
    """The command's stdout to ours. In the middle of a line nobody else writes, so a line waits until it is
    whole: the command may call a tool before."""
    source = command.stdout.fileno() if command.stdout else -1
    held = b""
    within = False  # of a line that is too long to wait
    last = 0.0  # when to stop listening: what it left behind may hold the pipe, or write for ever
    try:
        while True:
            if ended.is_set():
                last = last or time.monotonic() + DRAIN
                if time.monotonic() > last:
                    return
            if not select.select([source], [], [], 0.1)[0]:
                continue
            data = os.read(source, CHUNK)
            if not data:
                return
            held += data
            end = held.rfind(b"\n") + 1
            if not (end or within or len(held) > LONGEST):
                continue
            if not within:
                output.between_lines.acquire()
            passed, held = (held[:end], held[end:]) if end else (held, b"")
            output.write(passed)
            within = not end
            if not within:
                output.between_lines.release()
    except OSError:
        pass
    finally:
        if not within:
            output.between_lines.acquire()
        try:
            output.write(held)
        except OSError:
            pass
        output.between_lines.release()


def die_with_parent() -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    try:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    except (AttributeError, OSError):
        pass


# What earlier releases left where all of a person's sessions read it, from the home. Databases go once: later
# ones are of whoever runs these agents by themselves.
LEFT = ((".sandpiper", "shared"), (".sandpiper", "attached"))
DATABASES = ((".codex", "*.sqlite*"), (".local/share/opencode", "opencode*.db*"))
GONE = ".sandpiper/databases-are-gone"


def forget_the_home() -> None:
    home = Path.home()
    done = (home / GONE).exists()
    for directory, names in LEFT if done else (*LEFT, *DATABASES):
        above = home / directory
        if above.resolve() != home.resolve() / directory:  # a link leads elsewhere
            continue
        for path in above.glob(names):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                try:
                    path.unlink()
                except OSError:
                    pass
    if not done:
        try:
            (home / GONE).parent.mkdir(mode=0o700, exist_ok=True)
            (home / GONE).touch()
        except OSError:
            pass


def run(directory: Path, shared: str, tools: str, argv: list[str]) -> int:
    output = Output()
    calls = Calls(output, tools, shared)
    made = False
    forget_the_home()
    try:
        clear(directory)
    except OSError as error:
        sys.stderr.write(f"sandpiper: {directory} is somebody else's: {error}\n")
        return 126
    try:
        offer(directory, tools, calls)
        made = True
    except OSError as error:  # nothing depends on them
        sys.stderr.write(f"sandpiper: no side tools: {error}\n")
    # The whole group gets a signal: the command decides what it means.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    try:
        command = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, preexec_fn=die_with_parent
        )
    except OSError as error:
        sys.stderr.write(f"sandpiper: {argv[0]} cannot be started: {error}\n")
        return 127 if isinstance(error, FileNotFoundError) else 126
    ended = threading.Event()
    threading.Thread(target=pass_in, args=(command, calls), daemon=True).start()
    passing = threading.Thread(target=pass_out, args=(command, output, ended), daemon=True)
    passing.start()
    code = command.wait()
    ended.set()
    passing.join()
    if made:
        shutil.rmtree(directory, ignore_errors=True)
    return 128 - code if code < 0 else code


def main() -> None:
    try:
        directory, shared, listed, *argv = sys.argv[1:]
        if not argv:
            raise ValueError
    except ValueError:
        raise SystemExit(__doc__) from None
    code = run(Path(directory), shared, listed, argv)
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
