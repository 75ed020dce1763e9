"""OpenCode's server on stdin and stdout. Standard library only, Python 3.9+.

    opencode_bridge.py opencode [argument …]

It starts `opencode serve` on a free port of loopback, with a password of its own making, and says its HTTP
as JSON lines. It decides nothing: what a frame means, and what to ask, is its client's to know.

Lines in:   {"id": …, "method": "GET", "path": "/session", "body": {…}}
            with "without": ["key", …]                       names that are left out of the reply's body
            {"id": …, "method": "WAIT", "seconds": 0.5}      answered after that time
Lines out:  {"type": "event", "event": {…}}                  what the server tells on /event
            {"type": "reply", "id": …, "status": 200, "body": …}
            {"type": "reply", "id": …, "status": 0, "error": "…"}   no answer came
            {"type": "reconnected"}                          events may have been missed
Requests are made one after the other, in their order; waits run beside them. The server's own stderr is
passed through. When the server ends by itself, the bridge ends with its code; at the end of stdin it ends the
server with everything that it started.
"""

from __future__ import annotations

import base64
import ctypes
import http.client
import json
import os
import queue
import re
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

LISTENING = re.compile(rb"listening on (http://\S+)")
START = 120.0  # a first start unpacks itself, on a slow disk
ANSWER = 60.0
FIRST_EVENT = 10.0  # a connection that was made a moment too early never says anything
SILENCE = 45.0  # the server's heartbeat comes every ten seconds
GRACE = 3.0
LONGEST_WAIT = 3600.0

# In its configuration's directory OpenCode installs this by npm at each start, for tools that may be there,
# unless it finds it noted as installed.
PLUGIN = "@opencode-ai/plugin"

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36


def prctl(option: int, value: int) -> None:
    """What Linux offers so that nothing outlives its parent unseen; elsewhere nothing happens."""
    try:
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)
    except (AttributeError, OSError):
        pass


class Wire:
    """Lines out, by several threads. A client that is gone is not an error of ours."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        # Not sys.stdout: a thread that holds its buffer's lock at the end would abort the interpreter.
        self.out = sys.stdout.fileno()

    def say(self, **frame: Any) -> None:
        data = json.dumps(frame, separators=(",", ":")).encode() + b"\n"
        with self.lock:
            try:
                while data:
                    data = data[os.write(self.out, data) :]
            except OSError:
                pass


def spare_the_plugin(env: dict[str, str]) -> None:
    """Nothing of ours needs it. A directory that has something in it is its owner's matter."""
    home = env.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")  # noqa: PTH111
    directory = os.path.join(home, "opencode")  # noqa: PTH118
    try:
        os.makedirs(directory, exist_ok=True)  # noqa: PTH103
        if set(os.listdir(directory)) <= {".gitignore"}:  # noqa: PTH208
            os.mkdir(os.path.join(directory, "node_modules"))  # noqa: PTH102, PTH118
            with open(os.path.join(directory, "package-lock.json"), "x") as file:  # noqa: PTH118, PTH123
                json.dump({"packages": {"": {"dependencies": {PLUGIN: "*"}}}}, file)
    except OSError:
        pass


class Server:
    """`opencode serve`, and how it is reached. Raises RuntimeError when it does not come up."""

    def __init__(self, command: list[str]) -> None:
        password = secrets.token_urlsafe(32)
        env = {
            **os.environ,
            "OPENCODE_SERVER_USERNAME": "opencode",
            "OPENCODE_SERVER_PASSWORD": password,
        }
        spare_the_plugin(env)
        prctl(PR_SET_CHILD_SUBREAPER, 1)
        # An argument list and our own environment: nothing of this shows in a list of processes.
        self.process = subprocess.Popen(
            [*command, "serve", "--hostname", "127.0.0.1", "--port", "0"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            env=env,
            preexec_fn=lambda: prctl(PR_SET_PDEATHSIG, signal.SIGKILL),
        )
        token = base64.b64encode(f"opencode:{password}".encode()).decode()
        self.headers = {"Authorization": f"Basic {token}"}
        self.address = self._listening()

    def _listening(self) -> tuple[str, int]:
        found: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._read, args=(found,), daemon=True).start()
        try:
            url = found.get(timeout=START)
        except queue.Empty:
            raise RuntimeError(f"opencode serve did not listen within {START:.0f} seconds") from None
        if url is None:
            raise RuntimeError("opencode serve ended before it listened")
        parts = urlsplit(url)
        return parts.hostname or "127.0.0.1", parts.port or 80

    def _read(self, found: queue.Queue[str | None]) -> None:
        """To its end, or the server would block on a full pipe. What it says besides goes to stderr."""
        for line in self.process.stdout or ():
            told = LISTENING.search(line)
            if told:
                found.put(told[1].decode("ascii", "replace"))
            else:
                sys.stderr.write(line.decode("utf-8", "replace"))
                sys.stderr.flush()
        found.put(None)

    def connect(self, timeout: float) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(*self.address, timeout=timeout)

    def ask(self, method: str, path: str, body: object) -> dict[str, Any]:
        connection = self.connect(ANSWER)
        try:
            data = None if body is None else json.dumps(body).encode()
            headers = {**self.headers, **({"Content-Type": "application/json"} if data else {})}
            connection.request(method, path, data, headers)
            response = connection.getresponse()
            text = response.read().decode("utf-8", "replace")
        except (OSError, ValueError, http.client.HTTPException) as error:  # ValueError: of the path or body
            return {"status": 0, "error": str(error) or type(error).__name__}
        finally:
            connection.close()
        try:
            return {"status": response.status, "body": json.loads(text) if text else None}
        except ValueError:
            return {"status": response.status, "body": text}

    def events(self) -> Iterator[bytes]:
        """The data of one connection's events, until it breaks or falls silent."""
        connection = self.connect(FIRST_EVENT)
        try:
            connection.request("GET", "/event", headers={**self.headers, "Accept": "text/event-stream"})
            response = connection.getresponse()
            if response.status != 200:
                return
            data: list[bytes] = []
            while True:
                line = response.readline()
                if not line:
                    return
                line = line.rstrip(b"\r\n")
                if line.startswith(b"data:"):
                    data.append(line[5:].lstrip(b" "))
                elif not line and data:
                    if connection.sock is not None:
                        connection.sock.settimeout(SILENCE)
                    yield b"\n".join(data)
                    data = []
        except (OSError, http.client.HTTPException, ValueError):
            return
        finally:
            connection.close()

    def end(self) -> None:
        """With all that it started, in groups of its own even: what loses its parent becomes ours."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(GRACE)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        for _ in range(50):
            left = descendants(os.getpid())
            for pid in left:
                try:
                    os.kill(pid, signal.SIGKILL)
                except OSError:
                    pass
            reap()
            if not left:
                break
            time.sleep(0.02)


def descendants(root: int) -> list[int]:
    """Everything that runs below a process, without zombies."""
    below: dict[int, list[int]] = {}
    try:
        names = [name for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208 (3.9, and hot)
    except OSError:
        return []
    for name in names:
        try:
            with open(f"/proc/{name}/stat", "rb") as file:  # noqa: PTH123
                state, parent = file.read().rpartition(b")")[2].split()[:2]
        except (OSError, ValueError):
            continue
        if state != b"Z":
            below.setdefault(int(parent), []).append(int(name))
    found: list[int] = []
    parents = [root]
    while parents:
        for pid in below.get(parents.pop(), ()):
            found.append(pid)
            parents.append(pid)
    return found


def reap() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except OSError:
        pass


def without(value: Any, names: list[Any]) -> Any:
    """The value without what has one of these names, wherever it is: what may not be told."""
    if isinstance(value, dict):
        return {name: without(item, names) for name, item in value.items() if name not in names}
    return [without(item, names) for item in value] if isinstance(value, list) else value


class Bridge:
    def __init__(self, server: Server, wire: Wire) -> None:
        self.server = server
        self.wire = wire
        self.connected = threading.Event()
        self.requests: queue.Queue[dict[str, Any] | None] = queue.Queue()
        # The server's code, or None for our own end. Simple, since a signal's handler puts into it.
        self.over: queue.SimpleQueue[int | None] = queue.SimpleQueue()

    def run(self) -> int | None:
        for work in (self.hear, self.ask, self.listen, self.watch):
            threading.Thread(target=work, daemon=True).start()
        signal.signal(signal.SIGTERM, lambda *_: self.over.put(None))
        return self.over.get()

    def hear(self) -> None:
        """Events, from the first connection on: nobody asks anything before we can hear what follows."""
        pause = 0.05
        while True:
            for data in self.server.events():
                if not self.connected.is_set():
                    self.connected.set()
                elif pause:
                    self.wire.say(type="reconnected")
                pause = 0.0
                try:
                    self.wire.say(type="event", event=json.loads(data))
                except ValueError:
                    self.wire.say(type="event", raw=data.decode("utf-8", "replace"))
            pause = min(2.0, (pause or 0.05) * 2)
            time.sleep(pause)

    def ask(self) -> None:
        self.connected.wait()
        while True:
            request = self.requests.get()
            if request is None:
                self.over.put(None)
                return
            told = self.server.ask(request["method"], str(request.get("path")), request.get("body"))
            if isinstance(request.get("without"), list):
                told["body"] = without(told.get("body"), request["without"])
            self.wire.say(type="reply", id=request["id"], **told)

    def listen(self) -> None:
        for line in sys.stdin.buffer:
            try:
                request = json.loads(line)
                method = str(request["method"])
                request["id"]
                if method == "WAIT":
                    seconds = min(max(float(request["seconds"]), 0.0), LONGEST_WAIT)
                    timer = threading.Timer(seconds, self.waited, (request["id"],))
                    timer.daemon = True
                    timer.start()
                    continue
            except (ValueError, KeyError, TypeError):
                sys.stderr.write(f"not a request: {line[:200]!r}\n")
                sys.stderr.flush()
                continue
            self.requests.put(request)
        # What was asked before the end is still done, unless that takes long.
        self.requests.put(None)
        time.sleep(GRACE)
        self.over.put(None)

    def waited(self, id: object) -> None:
        self.wire.say(type="reply", id=id, status=200)

    def watch(self) -> None:
        self.over.put(self.server.process.wait())


def main(command: list[str]) -> int:
    try:
        server = Server(command or ["opencode"])
    except (OSError, RuntimeError) as error:
        sys.stderr.write(f"{error}\n")
        for pid in descendants(os.getpid()):
            os.kill(pid, signal.SIGKILL)
        return 127 if isinstance(error, OSError) else 1
    code: int | None = None
    try:
        code = Bridge(server, Wire()).run()
    finally:
        server.end()
    if code is None:
        return 0
    sys.stderr.write(f"opencode serve ended with {code}\n")
    return 128 - code if code < 0 else code or 1


if __name__ == "__main__":
    # Daemon threads may wait in a read of stdin: leave without asking them.
    ended = main(sys.argv[1:])
    sys.stderr.flush()
    os._exit(ended)
