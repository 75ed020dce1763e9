"""A small world for the core: a forge that is a real git repository, a sandbox that is a directory,
an agent that follows a script, and a surface that remembers what it was told."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections import Counter
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bot.agents.codec import (
    Answered,
    Capabilities,
    Decided,
    Exited,
    Happening,
    Interrupt,
    Lines,
    State,
    Steer,
    Step,
    Task,
)
from bot.agents.wire import to_line
from bot.errors import (
    FileRefused,
    InputGap,
    ProcessGone,
    RepositoryUnknown,
    SandboxError,
    SandboxGone,
    SandboxUnreachable,
    SurfaceBusy,
)
from bot.events import (
    AgentStarted,
    ApprovalAsked,
    Cause,
    Completed,
    Event,
    Question,
    StopReason,
    Text,
    Unknown,
)
from bot.models import (
    Attachment,
    Chunk,
    Closing,
    CodeBundle,
    Delivery,
    DeniedHost,
    ExecResult,
    Identity,
    Launch,
    Message,
    MessageRef,
    Offered,
    OfferedModel,
    OutboxItem,
    ProcessStatus,
    PullRequest,
    Remark,
    Repository,
    SandboxState,
    SayingKind,
    Standing,
    ThreadKey,
    Work,
)
from bot.ports import Guard, Link
from bot.shared_files import content
from bot.timeline import Timeline

CLEAN_ENV = {
    "PATH": os.environ["PATH"],
    "HOME": "/nonexistent",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_AUTHOR_NAME": "Ana",
    "GIT_AUTHOR_EMAIL": "ana@example.com",
    "GIT_COMMITTER_NAME": "Ana",
    "GIT_COMMITTER_EMAIL": "ana@example.com",
}


# The ends of programs that are started or at work right now: while there are some, a test's clock had better
# stand still.
RUNNING: set[asyncio.Event] = set()


async def shell(script: str, *args: str, cwd: Path) -> str:
    code, out, err = await ran("sh", "-ec", script, "test", *args, cwd=cwd)
    assert code == 0, err.decode()
    return out.decode().strip()


async def ran(
    *argv: str, cwd: Path | str, env: Mapping[str, str] = CLEAN_ENV, stdin: bytes = b""
) -> tuple[int, bytes, bytes]:
    """A program's exit code and output; a program that nobody waits for any more is killed."""
    over = asyncio.Event()
    RUNNING.add(over)
    try:
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            *argv, cwd=cwd, env=env, stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True
        )
        try:
            out, err = await process.communicate(stdin)
        finally:
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)  # also what it started, which holds its output
                await process.communicate()
        return process.returncode or 0, out, err
    finally:
        RUNNING.discard(over)
        over.set()


# The surface


@dataclass
class MemorySurface:
    """Everything said, in order. `busy` makes the next sends fail; `deaf` loses their answers."""

    name: str = "slack"
    said: list[OutboxItem] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)  # what was in them, by their names
    pictures: list[Timeline] = field(default_factory=list)
    earlier: list[Remark] = field(default_factory=list)
    outsiders: set[str] = field(default_factory=set)
    gone: set[str] = field(default_factory=set)  # accounts that are not there any more
    told_closed: dict[str, Sequence[Closing]] = field(default_factory=dict)  # by what delivery
    busy: int = 0
    deaf: int = 0
    uploads: dict[str, bytes] = field(default_factory=dict)  # what people attach, by id
    holding: asyncio.Event | None = None  # `fetch` then waits for it
    fetched: asyncio.Event = field(default_factory=asyncio.Event)
    slow: asyncio.Event | None = None  # `remarks` then waits for it
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def parse(self, delivery: Delivery) -> Sequence[Message]:
        raise NotImplementedError("these tests give messages to the sessions themselves")

    def standings(self, delivery: Delivery) -> Sequence[Standing]:
        return ()

    def closings(self, delivery: Delivery) -> Sequence[Closing]:
        return self.told_closed.pop(delivery.id, ())

    async def standing(self, identity: Identity) -> Sequence[Standing]:
        if self.busy:
            self.busy -= 1
            raise SurfaceBusy("rate limited", 1.0)
        why = "deactivated" if identity.user in self.gone else ""
        return (Standing(identity.tenant), Standing(identity.tenant, identity.user, why=why))

    async def open_thread(self, message: Message) -> ThreadKey:
        return replace(message.thread, id="root")

    async def remarks(self, thread: ThreadKey, before: str) -> Sequence[Remark]:
        self.asked.set()
        if self.slow is not None:
            await self.slow.wait()
        return self.earlier

    async def external(self, identity: Identity, thread: ThreadKey) -> str:
        return "guest" if identity.user in self.outsiders else ""

    def direct(self, thread: ThreadKey) -> bool:
        return thread.scope.endswith("/alone")

    async def send(self, item: OutboxItem) -> MessageRef | None:
        if self.busy:
            self.busy -= 1
            raise SurfaceBusy("rate limited", 1.0)
        if file := item.saying.file:
            self.files[file.name] = await content(file)
        self.said.append(item)
        async with self.changed:
            self.changed.notify_all()
        if self.deaf:
            self.deaf -= 1
            raise SurfaceBusy("the answer got lost", 1.0)
        return MessageRef(self.name, item.saying.thread.scope, f"post-{len(self.said)}")

    async def fetch(self, file: Attachment, to: Path) -> None:
        self.fetched.set()
        if self.holding is not None:
            await self.holding.wait()
        if file.id not in self.uploads:
            raise FileRefused("It was deleted.")
        to.write_bytes(self.uploads[file.id])

    async def find(self, item: OutboxItem) -> MessageRef | None:
        for index, known in enumerate(self.said):
            if known.saying.key == item.saying.key:
                return MessageRef(self.name, item.saying.thread.scope, f"post-{index + 1}")
        return None

    async def show(self, ref: MessageRef, picture: Timeline) -> None:
        self.pictures.append(picture)
        async with self.changed:
            self.changed.notify_all()

    def spoken(self, words: str) -> str:
        return words

    def redraw_interval(self, running: int) -> float:
        return 0.0

    def link(self, thread: ThreadKey) -> str:
        return f"https://chat.example/{thread.id}"

    def finals(self) -> list[OutboxItem]:
        return [item for item in self.said if item.saying.kind is SayingKind.FINAL]

    def notes(self) -> list[str]:
        return [item.saying.text for item in self.said if item.saying.kind is SayingKind.NOTE]


# The forge


@dataclass
class DirectoryForge:
    """acme/web as a bare repository; a push is a fetch from the bundle. Set `trouble` to fail, and
    `renamed` to have it called otherwise. `others`: further repositories, as `add`
    makes them. permissions: by account,
    or by "account@owner/name"."""

    root: Path
    permissions: dict[str, str] = field(default_factory=dict)
    pull_requests: dict[str, PullRequest] = field(default_factory=dict)
    bodies: dict[str, str] = field(default_factory=dict)
    states: dict[int, str] = field(default_factory=dict)  # of pull requests that are not open
    pushes: int = 0
    trouble: list[Exception] = field(default_factory=list)
    unsure: list[Exception] = field(default_factory=list)  # what the next questions for a permission meet
    thinking: dict[str, list[asyncio.Event]] = field(default_factory=dict)  # what an account's answers await
    looked_up: list[str] = field(default_factory=list)  # accounts whose permission was asked for
    others: tuple[Repository, ...] = ()
    renamed: str = ""
    stuck: asyncio.Event | None = None  # a push then waits for it
    far: asyncio.Event | None = None  # the code then comes when it is set
    pushing: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def bare(self) -> Path:
        return self.root / "web.git"

    async def prepare(self) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        await shell(
            """
            git init -q -b main seed
            echo hello >seed/README.md
            git -C seed add .
            git -C seed commit -qm first
            git clone -q --bare seed web.git
            git -C web.git config gc.auto 0
            """,
            cwd=self.root,
        )

    def bare_of(self, repository: Repository) -> Path:
        return self.bare if repository.id == 1 else self.root / f"{repository.id}.git"

    async def add(self, *repositories: Repository) -> None:
        for repository in repositories:
            await shell('git clone -q --bare seed "$1"', str(self.bare_of(repository)), cwd=self.root)
            self.others += (repository,)

    async def repository(self, name: str) -> Repository:
        for other in self.others:
            if name in (other.full_name, str(other.id)):
                return other
        if name not in ("acme/web", "1"):
            raise RepositoryUnknown(f"There is no repository {name}.", "Install the App on it.")
        head = await shell("git symbolic-ref --short HEAD", cwd=self.bare)
        return Repository(1, self.renamed or "acme/web", head, False, 11)

    async def permission(self, repository: Repository, login: str) -> str:
        self.looked_up.append(login)
        if self.thinking.get(login):
            await self.thinking[login].pop(0).wait()
        if self.unsure:
            raise self.unsure.pop()
        either = self.permissions.get(login, "none")
        return self.permissions.get(f"{login}@{repository.full_name}", either)

    async def bundle(
        self, repository: Repository, have: Sequence[str], to: Path, *, turn: int = 0
    ) -> CodeBundle:
        if self.far is not None:
            await self.far.wait()
        lines = await shell(
            "git for-each-ref --format='%(refname:short) %(objectname)' refs/heads",
            cwd=self.bare_of(repository),
        )
        refs = dict(line.split(" ", 1) for line in lines.splitlines())
        missing = [sha for sha in refs.values() if sha not in have]
        if missing:
            known = [f"^{sha}" for sha in have]
            await shell(
                'to=$1; shift; git bundle create -q "$to" --branches "$@"',
                str(to),
                *known,
                cwd=self.bare_of(repository),
            )
        return CodeBundle("main", refs, empty=not missing)

    async def publish_branch(self, repository: Repository, bundle: Path, work: Work, expected: str) -> None:
        self.pushing.set()
        if self.stuck is not None:
            await self.stuck.wait()
        if self.trouble:
            raise self.trouble.pop(0)
        if await self.branch_head(repository, work.branch) == work.head:
            return
        self.pushes += 1
        await shell(
            'git fetch -q "$1" "+refs/sandpiper/outgoing/$2:refs/heads/$2"',
            str(bundle),
            work.branch,
            cwd=self.bare_of(repository),
        )

    async def branch_head(self, repository: Repository, branch: str) -> str:
        where = self.bare_of(repository)
        return await shell('git rev-parse -q --verify "refs/heads/$1" || true', branch, cwd=where)

    async def pull_request(
        self,
        repository: Repository,
        work: Work,
        title: str,
        body: str,
        marker: str,
        update: str = "",
        issue: str = "",
    ) -> PullRequest:
        key = work.branch if repository.id == 1 else f"{repository.full_name}:{work.branch}"
        known = self.pull_requests.get(key)
        number = known.number if known else 100 + len(self.pull_requests)
        name = "acme/web" if repository.id == 1 else repository.full_name
        url = f"https://forge.example/{name}/pull/{number}"
        pull = PullRequest(
            number, url, title, work.branch, work.base, name, work.commits, created=known is None
        )
        self.pull_requests[key] = pull
        self.bodies[key] = body if known is None else f"{self.bodies[key]}\n\n{update}"
        return pull

    async def pull_request_state(self, repository: Repository, number: int) -> str:
        return self.states.get(number, "open")

    async def squash(self, pull: PullRequest) -> None:
        """Somebody merges a pull request as one commit and deletes its branch."""
        await shell(
            """
            commit=$(git commit-tree "$1^{tree}" -p main -m Squashed)
            git update-ref refs/heads/main "$commit"
            git update-ref -d "refs/heads/$1"
            """,
            pull.head,
            cwd=self.bare,
        )
        self.states[pull.number] = "merged"
        self.pull_requests[f"merged-{pull.number}"] = self.pull_requests.pop(pull.head)

    async def file(self, branch: str, path: str, repository: Repository | None = None) -> str:
        where = self.bare if repository is None else self.bare_of(repository)
        return await shell('git show "$1:$2"', branch, path, cwd=where)


# The agent


MODEL_KEY = "of-no-known-form-1"


PLAIN = Capabilities()


class LineCodec:
    """A protocol that is our events as JSON: enough to drive the driver."""

    def __init__(self, name: str = "lines", capabilities: Capabilities = PLAIN) -> None:
        self.name = name
        self.capabilities = capabilities

    def launch(self, task: Task) -> Launch:
        return Launch(("agent",), task.cwd, secrets={"MODEL_KEY": MODEL_KEY}, visible=task.visible)

    def begin(self, task: Task) -> Step:
        said = {"prompt": task.prompt.text, "key": task.prompt.key, "resume": task.resume_token}
        said["pictures"] = " ".join(task.prompt.images)
        line = json.dumps({**said, "permissions": task.permissions})
        asked = {task.prompt.key: list(task.prompt.inputs)}
        return Step({"asked": asked}, write=line.encode() + b"\n", written=task.prompt.inputs)

    def on(self, state: State, happening: Happening) -> Step:
        asked = dict(state["asked"])  # type: ignore[call-overload]
        match happening:
            case Steer(prompt=prompt):
                said = {"prompt": prompt.text, "key": prompt.key, "pictures": " ".join(prompt.images)}
                line = json.dumps(said).encode() + b"\n"
                asked[prompt.key] = list(prompt.inputs)
                return Step({"asked": asked}, write=line, written=prompt.inputs)
            case Interrupt():
                return Step(state, write=b'{"interrupt":true}\n')
            case Decided(id="plan", allowed=False):  # some agents are done with that
                done = Completed(StopReason.END, "Nothing was changed.")
                return Step(state, (done,), completed=done)
            case Decided(id=id, allowed=allowed, reason=reason):
                return Step(state, write=to_line({"answer": id, "allowed": allowed, "reason": reason}))
            case Answered(id=id, text=text, reason=reason):
                return Step(state, write=to_line({"answer": id, "text": text, "reason": reason}))
            case Exited():
                return Step(state)
            case Lines(lines=lines):
                return self._read(asked, lines)

    def _read(self, asked: dict[str, list[int]], lines: tuple[bytes, ...]) -> Step:
        events: list[Event] = []
        consumed: list[int] = []
        completed, token, offered = None, "", None
        for raw in lines:
            try:
                said = json.loads(raw)
            except ValueError:
                events.append(Unknown("not JSON", raw.decode()))
                continue
            if "text" in said:
                events.append(Text(said["text"]))
            if "token" in said:
                token = said["token"]
                events.append(AgentStarted("lines", token, version="7"))
            if "models" in said:
                offered = Offered(tuple(OfferedModel(name) for name in said["models"]), complete=("",))
            if "may" in said:
                events.append(ApprovalAsked(said["may"], said["title"], said.get("detail", "")))
            if "question" in said:
                events.append(Question(said["question"], said["title"], open=True))
            if "took" in said:
                consumed += asked.get(said["took"], [])
            if "done" in said:
                completed = Completed(StopReason.END, said["done"])
            if "cancelled" in said:
                completed = Completed(StopReason.CANCELLED)
            if "failed" in said:
                cause = Cause(said.get("cause", ""))
                completed = Completed(StopReason.ERROR, error=said["failed"], cause=cause)
        return Step(
            {"asked": asked},
            tuple(events),
            consumed=tuple(consumed),
            completed=completed,
            resume_token=token,
            offered=offered,
        )


class ScriptedProcess:
    """An agent's process in memory. Its `play` coroutine reads prompts and says lines."""

    def __init__(self, key: str, cwd: Path) -> None:
        self.key = key
        self.cwd = cwd
        self.out = bytearray()
        self.err = bytearray()
        self.acked = {1: 0, 2: 0}
        self.stdin = bytearray()
        self.closed = False
        self.exit_code: int | None = None
        self.signals: list[str] = []
        self.gone = False
        self.deaf = 0  # how many of the next writes do not reach it
        self._read_to = 0
        self._moved = asyncio.Event()

    # what a script uses

    def say(self, **words: object) -> None:
        self.out += json.dumps(words).encode() + b"\n"
        self._ring()

    def complain(self, text: str) -> None:
        self.err += text.encode()
        self._ring()

    def exit(self, code: int) -> None:
        self.exit_code = code
        self._ring()

    async def heard(self) -> dict[str, str]:
        """The next line on stdin."""
        while b"\n" not in self.stdin[self._read_to :]:
            await self._next()
        end = self.stdin.index(b"\n", self._read_to)
        line = bytes(self.stdin[self._read_to : end])
        self._read_to = end + 1
        heard: dict[str, str] = json.loads(line)
        return heard

    async def take(self) -> dict[str, str]:
        """Hear a prompt and say that it was taken in."""
        heard = await self.heard()
        self.say(took=heard["key"])
        return heard

    async def write_file(self, name: str, text: str, *, commit: str = "") -> None:
        (self.cwd / name).write_text(text)
        if commit:
            await shell('git add -A && git commit -qm "$1"', commit, cwd=self.cwd)

    # bot.ports.Process

    async def read(self, fd: int, offset: int, *, ack: int, wait: float, limit: int = 1 << 18) -> Chunk:
        while True:
            self.acked[fd] = max(self.acked[fd], ack)
            if self.gone or offset < self.acked[fd]:
                raise ProcessGone("no such process, or bytes")
            whole = self.out if fd == 1 else self.err
            data = bytes(whole[offset : offset + limit])
            ended = self.exit_code is not None
            if data or ended:
                return Chunk(data, offset + len(data), ended and offset + len(data) >= len(whole))
            await self._next()

    async def write(self, offset: int, data: bytes, *, eof: bool = False) -> int:
        if self.deaf:
            self.deaf -= 1
            raise SandboxUnreachable("it does not answer")
        if offset > len(self.stdin):
            raise InputGap(len(self.stdin))
        self.stdin += data[len(self.stdin) - offset :]
        self.closed = self.closed or eof
        if eof and self.exit_code is None:
            self.exit_code = 0
        self._ring()
        return len(self.stdin)

    async def signal(self, name: str) -> None:
        self.signals.append(name)
        if self.exit_code is None:
            self.exit(-15)

    async def lease(self, seconds: float) -> None:
        return None

    async def status(self) -> ProcessStatus:
        return ProcessStatus(self.exit_code is None, self.exit_code, len(self.stdin), 0.0)

    async def forget(self) -> None:
        self.gone = True

    def _ring(self) -> None:
        self._moved.set()
        self._moved = asyncio.Event()

    async def _next(self) -> None:
        await self._moved.wait()


Script = Callable[[ScriptedProcess], Coroutine[Any, Any, None]]


class HostSandbox:
    """A directory of this machine, without isolation: only for tests of the core."""

    def __init__(self, root: Path, agents: list[Script]) -> None:
        self.id = root.name
        self.labels: Mapping[str, str] = {}
        self.dropped: Callable[[], object] = lambda: None  # its provider hears that it was deleted
        self.home = str(root / "home")
        self.workspaces = str(root / "workspaces")
        self.repositories = str(root / "repositories")
        self.agents = str(root / "agents")
        self.processes: dict[str, ScriptedProcess] = {}
        self.scripts: list[Script] = agents
        self.playing: list[asyncio.Task[None]] = []
        self.denied: list[tuple[float, DeniedHost]] = []  # and when
        self.starved: Counter[str] = Counter()
        self.exposed: dict[str, int] = {}
        self.guards: dict[str, Guard] = {}
        self.bearer = 0.0  # seconds of its links, where they ask nobody

    async def state(self) -> SandboxState:
        return SandboxState.RUNNING

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def delete(self) -> None:
        self.dropped()

    async def touch(self, idle_stop: float) -> None: ...

    async def enter(self) -> None: ...

    async def run(self, launch: Launch, *, stdin: bytes = b"", timeout: float = 60.0) -> ExecResult:
        for path in launch.visible:
            Path(path).mkdir(parents=True, exist_ok=True)
        env = {**CLEAN_ENV, **launch.env}
        try:
            async with asyncio.timeout(timeout):
                return ExecResult(*await ran(*launch.argv, cwd=launch.cwd, env=env, stdin=stdin))
        except TimeoutError as error:
            raise SandboxUnreachable(f"A program took longer than {timeout:g} s.") from error

    async def upload(self, source: Path, path: str) -> None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_bytes(source.read_bytes())

    async def download(self, path: str, target: Path, *, limit: int) -> None:
        target.write_bytes(Path(path).read_bytes())

    async def spawn(self, key: str, launch: Launch, *, fence: int, orphan_after: float) -> ScriptedProcess:
        if key not in self.processes:
            process = self.processes[key] = ScriptedProcess(key, Path(launch.cwd))
            if self.scripts:
                script = self.scripts.pop(0)
                self.playing.append(asyncio.create_task(script(process)))
        return self.processes[key]

    async def attach(self, key: str, *, fence: int) -> ScriptedProcess:
        process = self.processes.get(key)
        if process is None or process.gone:
            raise ProcessGone(f"no process {key}")
        return process

    async def expose(
        self,
        port: int,
        path: str,
        *,
        visible: Collection[str] = (),
        entrance: str = "",
        guard: Guard | None = None,
        strangers: bool = False,
    ) -> Link:
        if strangers and self.bearer:
            raise SandboxError("Strangers read here.")
        if guard is not None:
            path = entrance
            if not path:
                raise SandboxError("No turn runs.")
            self.guards[path] = guard
        self.exposed[path] = port
        return Link(f"http://box.example:{port}/", self.bearer)

    async def conceal(self, path: str) -> None:
        self.exposed.pop(path, None)

    async def memory_kills(self, key: str) -> int:
        return self.starved[key]

    async def denied_hosts(self, since: float) -> tuple[DeniedHost, ...]:
        return tuple(host for at, host in self.denied if at >= since)


class HostProvider:
    """Makes HostSandboxes. `scripts` are played by the agents in the order of their starts."""

    name = "host"
    host = ""
    warning = ""
    separates_sessions = True
    shares_agents = False

    def __init__(self, root: Path, scripts: Sequence[Script] = ()) -> None:
        self.root = root
        self.scripts = list(scripts)
        self.boxes: dict[str, HostSandbox] = {}
        self.made = 0
        self.stuck: asyncio.Event | None = None  # create then waits for it
        self.make: Callable[[Path, list[Script]], HostSandbox] = HostSandbox

    async def check(self) -> None: ...

    async def create(self, labels: Mapping[str, str]) -> HostSandbox:
        if self.stuck is not None:
            await self.stuck.wait()
        box = self.make(self.root / f"box-{self.made}", self.scripts)
        box.labels = dict(labels)
        box.dropped = lambda: self.boxes.pop(box.id)
        self.made += 1
        for path in (box.home, box.workspaces, box.repositories, box.agents):
            Path(path).mkdir(parents=True)
        self.boxes[box.id] = box
        return box

    async def find(self, labels: Mapping[str, str]) -> Sequence[HostSandbox]:
        return ()

    async def get(self, id: str) -> HostSandbox:
        if id not in self.boxes:
            raise SandboxGone(f"{id} does not exist")
        return self.boxes[id]

    async def close(self) -> None:
        for box in self.boxes.values():
            for task in box.playing:
                task.cancel()
            await asyncio.gather(*box.playing, return_exceptions=True)
