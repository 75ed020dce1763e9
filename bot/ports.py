"""What the core asks of the outside. Each port has one contract suite under tests/contracts."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from bot.models import (
    Admitted,
    Ask,
    AskOutcome,
    Attachment,
    Caps,
    Choice,
    Chunk,
    Claim,
    Closing,
    CodeBundle,
    Delivery,
    DeniedHost,
    ExecResult,
    Final,
    Identity,
    Inbox,
    Input,
    Launch,
    Message,
    MessageRef,
    NewInput,
    NewSession,
    Offered,
    OutboxItem,
    Past,
    Person,
    ProcessStatus,
    PullRequest,
    Record,
    Remark,
    Repository,
    Reset,
    SandboxKey,
    SandboxRow,
    SandboxState,
    Saying,
    Session,
    Stale,
    Standing,
    StopOutcome,
    StoredEvent,
    ThreadKey,
    Turn,
    TurnState,
    Waiting,
    Work,
)
from bot.timeline import Timeline


class Clock(Protocol):
    def now(self) -> float:
        """Unix seconds."""
        ...

    async def sleep(self, seconds: float) -> None: ...


# Surfaces


class Surface(Protocol):
    """One place where people talk to us: what came in is parsed, what is to be said is said."""

    name: str

    async def parse(self, delivery: Delivery) -> Sequence[Message]:
        """The messages in a delivery; none when it is not for us. Raises Undecodable."""
        ...

    def standings(self, delivery: Delivery) -> Sequence[Standing]:
        """Who is not there any more, or is again, as a delivery tells. Raises Undecodable."""
        ...

    def closings(self, delivery: Delivery) -> Sequence[Closing]:
        """Which of our pull requests are done with, or not any more, as a delivery tells. Raises
        Undecodable."""
        ...

    async def standing(self, identity: Identity) -> Sequence[Standing]:
        """Whether this account is there, and its tenant, asked anew; nothing where that cannot be said.
        Raises SurfaceBusy."""
        ...

    async def open_thread(self, message: Message) -> ThreadKey:
        """Post the root that a message without a thread (a slash command) works under.

        Looks for its own marker first, so calling it again for the same message posts nothing.
        Raises SurfaceBusy, SurfaceError.
        """
        ...

    async def remarks(self, thread: ThreadKey, before: str) -> Sequence[Remark]:
        """What was said in the thread before the message sent at `before`, oldest first, bounded."""
        ...

    async def external(self, identity: Identity, thread: ThreadKey) -> str:
        """Why this person or place is outside the organisation (guest, shared channel), or "".

        Raises Denied where that cannot be seen from outside, with what lets us in.
        """
        ...

    def direct(self, thread: ThreadKey) -> bool:
        """Whether it is a conversation with us alone (a direct message)."""
        ...

    async def send(self, item: OutboxItem) -> MessageRef | None:
        """Say it. Marked, so that `find` sees it later. Raises SurfaceBusy, SurfaceError."""
        ...

    async def fetch(self, file: Attachment, to: Path) -> None:
        """A copy of what somebody attached to a message. Raises SurfaceBusy, SurfaceError (FileRefused)."""
        ...

    async def find(self, item: OutboxItem) -> MessageRef | None:
        """The post that an earlier try at this item made, if it did. Raises SurfaceBusy."""
        ...

    async def show(self, ref: MessageRef, picture: Timeline) -> None:
        """Redraw a turn's picture in place. Raises SurfaceBusy, SurfaceError (it was deleted)."""
        ...

    def spoken(self, words: str) -> str:
        """How people say these words to us there: as they are, or with a mention before them."""
        ...

    def redraw_interval(self, running: int) -> float:
        """Seconds to leave between two redraws of one picture while `running` turns are shown."""
        ...

    def link(self, thread: ThreadKey) -> str:
        """A URL of the thread, or "" where none is known without asking."""
        ...


# The forge


class Forge(Protocol):
    """Where the code lives. The only one who holds its credentials."""

    async def repository(self, name: str) -> Repository:
        """By "owner/name" or by id in digits. Raises RepositoryUnknown, ForgeError."""
        ...

    async def permission(self, repository: Repository, account: str) -> str:
        """An account's role: admin, maintain, write, triage, read or none. Raises ForgeError.

        account: the forge's own id of it (`Identity.user`), which survives a rename.
        """
        ...

    async def bundle(
        self, repository: Repository, have: Sequence[str], to: Path, *, turn: int = 0
    ) -> CodeBundle:
        """Write to `to` a git bundle of all branches (refs/heads/*), without the commits `have`.

        Commits unknown to the forge are ignored in `have`. Nothing is written when there is nothing
        new (`empty`). turn: one in whose sandbox git can fetch by itself. Then nothing is written of a large
        repository, and the answer says what is `lent`: there the sandbox's git reads this repository, and no
        other, until the turn ends, and writes nothing. Raises RepositoryUnknown, ForgeError.
        """
        ...

    async def publish_branch(self, repository: Repository, bundle: Path, work: Work, expected: str) -> None:
        """Check the bundle (verify, fsck, ancestry, size, workflow files) and push work.head to
        work.branch, unless the branch has commits that work.head lacks. expected: our own last push
        ("" = none), which may be replaced. A branch that is already at work.head is done. Raises
        BundleRefused, PushRefused, ForgeError.
        """
        ...

    async def branch_head(self, repository: Repository, branch: str) -> str:
        """The branch's commit on the forge, or ""."""
        ...

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
        """Open a pull request from work.branch to work.base, or find the one that is open for it.

        `marker` is hidden in the body; a pull request that carries it is ours, and what people made of
        its words stays: `update` is put below them, once for each work.head. issue: the number of the only
        one that its words may close when it is merged, "": none. Raises ForgeError.
        """
        ...

    async def pull_request_state(self, repository: Repository, number: int) -> str:
        """open, merged or closed (also when it cannot be found any more). Raises ForgeError."""
        ...


# Sandboxes


@dataclass(frozen=True, slots=True)
class Guard:
    """For whom a port is shown, and how long: `seconds`. refusal: why that person may not see it, or "",
    asked when they come and while they look. what: a sentence for them, about what it is."""

    seconds: float
    refusal: Callable[[], Awaitable[str]]
    what: str


@dataclass(frozen=True, slots=True)
class Link:
    """To a port of a sandbox. bearer: seconds for which whoever has it may open it, without being asked who
    they are; 0: it has no end of its own, or is for one person and ends with their Guard."""

    url: str = field(repr=False)
    bearer: float = 0.0


class Process(Protocol):
    """A program in a sandbox, kept by its supervisor, addressed by byte offsets."""

    key: str

    async def read(self, fd: int, offset: int, *, ack: int, wait: float, limit: int = 1 << 18) -> Chunk:
        """Output of fd 1 or 2 from `offset`, waiting up to `wait` seconds for the first byte.

        Bytes below `ack` will never be asked for again. Raises SandboxUnreachable, ProcessGone.
        """
        ...

    async def write(self, offset: int, data: bytes, *, eof: bool = False) -> int:
        """Give stdin the bytes from `offset`; what it has already is dropped. Returns the offset
        after. Raises InputGap, StaleFence, SandboxUnreachable, ProcessGone."""
        ...

    async def signal(self, name: str) -> None:
        """INT, TERM or KILL to the process's whole group. No error when it has ended."""
        ...

    async def lease(self, seconds: float) -> None:
        """Push the orphan deadline to `seconds` from now."""
        ...

    async def status(self) -> ProcessStatus: ...

    async def forget(self) -> None:
        """Drop the keeper and the spool of an ended process."""
        ...


class Sandbox(Protocol):
    """The isolated computer of one person in one tenant, kept between threads.

    All paths are paths inside the box. Every verb may raise SandboxUnreachable (retry),
    SandboxNotRunning (start it) and SandboxGone (it no longer exists).
    """

    id: str
    labels: Mapping[str, str]  # as it was made with
    home: str  # some know their directories only after `enter`
    workspaces: str  # a directory per session lives here
    repositories: str  # a bare clone per repository lives here
    agents: str  # the agents' programs; only a launch that installs may write there

    async def state(self) -> SandboxState: ...

    async def start(self) -> None: ...

    async def stop(self) -> None:
        """Stop it and everything that runs in it. Its files stay."""
        ...

    async def delete(self) -> None: ...

    async def touch(self, idle_stop: float) -> None:
        """It is in use; it may stop itself after `idle_stop` seconds without a further touch."""
        ...

    async def enter(self) -> None:
        """Before anything is done in it, while it runs. Its life goes on without: a program in it may have
        broken what this needs, or its image may not have it. Raises SandboxError with what that is."""
        ...

    async def run(self, launch: Launch, *, stdin: bytes = b"", timeout: float = 60.0) -> ExecResult:
        """Run a short program to its end. A non-zero code is a result; a timeout raises
        SandboxUnreachable after the program was killed. Output is clipped at 8 MB each."""
        ...

    async def upload(self, source: Path, path: str) -> None:
        """Copy a file of ours into the box, making directories as needed. Raises SandboxFull."""
        ...

    async def download(self, path: str, target: Path, *, limit: int) -> None:
        """Copy a regular file out of the box, `limit` bytes at most; a link out of the box is not
        followed. Raises SandboxError when it is missing or too large."""
        ...

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
        """Where people reach a TCP port of the box's loopback, until `conceal(path)`. guard: it is shown to
        one person, and not for ever. Where the provider signs links instead (Link.bearer), nobody is asked
        when they are opened; strangers: they read where the link is said, so that no such one is made.

        For providers that have no way of their own to a port: path: a unix socket in the home that leads to
        it; entrance: that of the launch that serves it (Launch.entrance), "": there is none now; it is what
        a guarded one is concealed by. visible: of the session (Launch.visible), whose programs have a
        loopback of their own where the provider keeps sessions apart. Raises SandboxError, where nothing
        listens, and with what would have to be set where there is no such way."""
        ...

    async def conceal(self, path: str) -> None:
        """Take the way to a port back. No error when there is none."""
        ...

    async def spawn(self, key: str, launch: Launch, *, fence: int, orphan_after: float) -> Process:
        """Start a program under the supervisor, or attach to the one already started by `key`.

        orphan_after: seconds without any call after which the supervisor ends it.
        """
        ...

    async def attach(self, key: str, *, fence: int) -> Process:
        """The process started by `key`, whoever started it. Raises ProcessGone."""
        ...

    async def denied_hosts(self, since: float) -> tuple[DeniedHost, ...]:
        """Hosts that the egress rules refused since then (Unix time), in order; one may come twice."""
        ...

    async def memory_kills(self, key: str) -> int:
        """How often a program was ended for the limit of memory that holds for the process of this key; 0
        where nobody counts that."""
        ...


class Provider(Protocol):
    """What makes sandboxes."""

    name: str
    # Where a sandbox can only be reached from: a disk or machine, an account; "" = anywhere, or not known.
    # An answer of `find`, `get` or `create`, also SandboxGone, comes after all that can be known of it.
    host: str
    warning: str  # an unsafe mode says so here, and every status repeats it; "" = none
    separates_sessions: bool  # whether a program sees of its owner's sessions only what its launch names
    shares_agents: bool  # whether what is installed from one sandbox is there in all

    async def check(self) -> None:
        """Can it work here? Raises ProviderUnavailable with the cause and the mend."""
        ...

    async def create(self, labels: Mapping[str, str]) -> Sandbox:
        """A new running sandbox, not entered yet: whoever makes it can write it down first. Raises
        ProviderUnavailable, SandboxFull, SandboxError."""
        ...

    async def find(self, labels: Mapping[str, str]) -> Sequence[Sandbox]:
        """All sandboxes that carry these labels."""
        ...

    async def get(self, id: str) -> Sandbox:
        """Raises SandboxGone only when the provider says that it does not exist."""
        ...

    async def close(self) -> None: ...


# The store


class Watch(Protocol):
    """Wakes when a topic was rung since the last wait. Data is always read again."""

    async def wait(self, timeout: float) -> None: ...


class Dispatcher(Protocol):
    """Says that somebody must drive a turn. May say it twice or late; the store fences."""

    def wake(self, turn: int) -> None: ...

    async def run(self, handler: Callable[[int], Awaitable[None]]) -> None:
        """Call the handler for each woken turn, turns side by side, until cancelled."""
        ...


class Store(Protocol):
    """The one truth. Each verb is one transaction; none of them touches the network.

    Verbs that carry a fence raise LeaseLost when the turn was claimed again since.
    Verbs that carry a message_key have their effect at most once per key.
    Topics of `watch`: "deliveries", "outbox", "turn:<id>".
    """

    def watch(self, topic: str) -> Watch: ...

    async def boot(self, owner: str) -> Sequence[int]:
        """Take over after a restart: this process is the only one on its data, so all leases and holds end.

        Returns every open turn's id, oldest first, for the dispatcher.
        """
        ...

    # deliveries

    async def accept(self, delivery: Delivery) -> bool:
        """Store a delivery durably (fsync). False: we have it already. Group-committed."""
        ...

    async def received(self, limit: int) -> Sequence[Delivery]:
        """Deliveries that have no outcome yet, oldest first (parked ones are left out)."""
        ...

    async def settle(self, surface: str, id: str, outcome: str) -> None:
        """Note what became of a delivery ("started", "steered", "ignored: …", "failed: …")."""
        ...

    async def park(self, surface: str, id: str, thread: ThreadKey) -> None:
        """Keep a reply whose thread we don't know (yet); a session of the thread unparks it."""
        ...

    async def sweep(self, now: float) -> None:
        """Delete parked deliveries older than ten minutes, and settled ones past retention."""
        ...

    # people and places

    async def person(self, identity: Identity) -> Person:
        """The person behind an identity; made when new."""
        ...

    async def known_person(self, id: int) -> Person | None:
        """By our own number of them."""
        ...

    async def note_standing(self, standing: Standing) -> Sequence[str]:
        """Who is not there any more, since now unless it was known, or is there again. Of who is not, the
        open turns are asked to stop, with the reason, but for those that push already. Returns their
        sessions."""
        ...

    async def repository_default(self, scope: str) -> str:
        """The default repository of a channel (a ThreadKey's scope, with its surface), or ""."""
        ...

    async def set_repository_default(
        self, message_key: str, scope: str, repository: str, by: Identity, saying: Saying
    ) -> bool: ...

    # sessions

    async def session(self, id: str) -> Session: ...

    async def session_of(self, alias: str) -> Session | None:
        """By str(ThreadKey) or branch_alias()."""
        ...

    async def admit(self, start: NewSession | str, input: NewInput, thread: ThreadKey) -> Admitted:
        """A permitted message comes in: for the session with this id, or for a new one.

        A new session is made only when the thread has none yet (else the input goes to that one).
        No open turn: a queued turn from `thread` starts, with the input and any held, deferred or
        pending ones of the session in order, and its TIMELINE saying is put in the outbox.
        Open and taking input: the input joins it (steer) or waits for the next (queue); interrupt
        also sets the stop. Each input with a `ref` gets a SEEN (or QUEUED) receipt saying.
        A session without a repository keeps the input; no turn starts (ASKED).
        """
        ...

    async def choose_repository(
        self,
        message_key: str,
        session: str,
        repository: Repository,
        thread: ThreadKey,
        further: Sequence[Repository] = (),
    ) -> Admitted:
        """Answer the question which repository is meant: the kept inputs start their turn."""
        ...

    async def revise(
        self,
        message_key: str,
        revises: str,
        text: str | None,
        by: Identity | None = None,
        choice: Choice | None = None,
    ) -> Input | None:
        """An edit (or a deletion, None) of an earlier message: when its input is still pending its
        text is replaced (or it is dropped). by: who edited it, and says it from now on; None: its
        author. choice: who is to work on it, and how, as long as no turn
        with it has begun; None: as before. Of a deletion's only the permissions count: how careful the
        session is from then on. Returns the input as it was before, None if unknown."""
        ...

    async def choices_waiting(self, session: str) -> Sequence[Choice]:
        """What the messages that wait for the session's next turn choose, in order."""
        ...

    async def request_stop(self, message_key: str, session: str, by: str) -> StopOutcome: ...

    async def open_asks(self, session: str) -> Sequence[Ask]:
        """What the agent of the session's open turn waits to hear from people, oldest first."""
        ...

    async def answer(
        self,
        message_key: str,
        session: str,
        ask: int,
        by: Identity,
        *,
        allowed: bool = False,
        text: str = "",
        ref: MessageRef | None = None,
    ) -> AskOutcome:
        """Settle an ask, once, in the words of somebody who may (the caller has checked). ref: their
        message, which gets a CONSUMED receipt. What was asked is redrawn with what came of it."""
        ...

    async def start_publish(
        self, message_key: str, session: str, thread: ThreadKey, by: Identity
    ) -> Admitted:
        """Start a turn of kind publish for the session's ready commits (no open turn, else QUEUED
        without effect). by: whom its final calls."""
        ...

    async def say(self, saying: Saying) -> bool:
        """Put one saying into the outbox. False: its key was there already."""
        ...

    async def open_sessions(self, person: int, place: str = "") -> Sequence[Session]:
        """What a person owns and has an open turn for, in a place ("surface:scope") or ("") anywhere, oldest
        first."""
        ...

    async def worked_sessions(self, person: int) -> Sequence[Session]:
        """What a person owns and has a branch, newest first."""
        ...

    async def leave_out(self, session: str, repository: int, why: str) -> Session:
        """One of its further repositories is left out for now, or ("") belongs to it again."""
        ...

    async def close_pull_request(self, closing: Closing) -> bool:
        """Note since when it is merged or closed, or that it is open again. False: it is no session's."""
        ...

    async def stale_sessions(self, person: int, stale: Stale, limit: int) -> Sequence[Session]:
        """What a person owns and has a branch, with no open turn and none that ended lately, the oldest
        first; without those that were put away since their last turn."""
        ...

    async def put_away(self, session: str, *, whole: bool) -> None:
        """Its worktrees were put away, until `set_workspace`; not whole: some have to stay for now."""
        ...

    async def add_alias(self, session: str, alias: str) -> None: ...

    async def threads(self, session: str) -> Sequence[ThreadKey]:
        """All threads of a session, its first one first."""
        ...

    async def authors(self, session: str) -> Sequence[Identity]:
        """Everybody whose words an agent of the session was given, the first one first."""
        ...

    async def set_workspace(
        self, session: str, branch: str, base: str, base_sha: str, repository: int = 0
    ) -> Session:
        """Name the session's branch, once: a later call changes only the base, which people may rename.
        Adds the branch alias. repository: which of the session's; 0: its first, here and below."""
        ...

    async def opened_in(self, session: str, sandbox: str) -> Session:
        """All its worktrees are open in the sandbox of this id, and no hook was run since."""
        ...

    async def hooked_in(self, session: str, sandbox: str) -> Session:
        """What its repositories want run has been, in the sandbox of this id."""
        ...

    async def offered(self, agent: str, version: str, person: int, repository: int) -> Offered | None:
        """What the agent, pinned to this version, listed last for this person in this repository. Where it
        has worked for them elsewhere only: the newest of that, of which nothing is complete, since a
        home and a repository may have settings of their own for it. repository: its id, 0: not known."""
        ...

    # turns

    async def turn(self, id: int) -> Turn: ...

    async def turn_before(self, id: int) -> Turn | None:
        """The turn of the same session before this one."""
        ...

    async def past(self, turn: int, limit: int) -> Sequence[Past]:
        """The newest ended turns of the same session before this one, the newest first."""
        ...

    async def open_turn(self, session: str) -> Turn | None: ...

    async def claim(self, turn: int, owner: str, lease: float, caps: Caps) -> Claim | Waiting | None:
        """Claim a turn: raises its fence. None: it has ended, or somebody else's lease holds.

        A queued turn becomes `preparing` when the caps allow it, else Waiting, and the store
        wakes the dispatcher for it as soon as a place is free.
        """
        ...

    async def wake_forgotten(self) -> None:
        """The slow poll behind the dispatcher: wake it for open turns that nobody drives though they
        could be, because a wake was lost or a lease has run out."""
        ...

    async def renew(self, turn: int, fence: int, lease: float) -> None: ...

    async def advance(self, turn: int, fence: int, state: TurnState) -> None:
        """To `running` (from preparing)."""
        ...

    async def new_attempt(self, turn: int, fence: int) -> Turn:
        """Start over with a new agent process: attempt+1, offsets and journal at zero, codec state
        empty; inputs that were written but not consumed are pending again."""
        ...

    async def inbox(self, turn: int) -> Inbox:
        """The stop request, the pending steering inputs and the untold answers of a turn, in order."""
        ...

    async def prompt_inputs(self, turn: int) -> Sequence[Input]:
        """All inputs that belong to this turn, in order, whatever their fate."""
        ...

    async def newest_turn(self, person: int) -> int:
        """Of all sessions that this person owns; 0: none."""
        ...

    async def given_beside(self, session: str) -> Sequence[Input]:
        """What the agents of its owner's other open turns were given, or may have been."""
        ...

    async def refuse_input(self, turn: int, fence: int, refused: Input, saying: Saying) -> bool:
        """Drop a pending input of the turn, with its receipt, and tell why. What it chose of agent, model and
        effort is undone in a turn's first attempt. False, and nothing is done: it is not any more as it was
        read."""
        ...

    async def record(self, turn: int, fence: int, record: Record) -> Turn:
        """One step of the turn, atomically. Group-committed. Consumed inputs get their CONSUMED
        receipt in the outbox, and what is asked its ASK saying. A Named event names the session's work.
        Returns the turn after it. Raises InputsChanged, and records nothing, when what it gives to the
        agent was edited or taken back since it was read, or the owner has opened a turn since it was
        asked who may: its code may be beside the agent's then.

        What an agent asks ends with its attempt and with the turn's intake: then it is withdrawn."""
        ...

    async def expire_asks(self, turn: int, fence: int) -> None:
        """What nobody answered by its deadline is a no: the inbox has it as an answer."""
        ...

    async def journal(self, turn: int, attempt: int, offset: int) -> bytes:
        """The stdin bytes recorded from `offset` on, to be written (again)."""
        ...

    async def events(self, turn: int) -> Sequence[StoredEvent]: ...

    async def begin_finishing(self, turn: int, fence: int) -> Inbox:
        """Close the intake and enter `finishing`, unless a stop or pending inputs are there: these
        are returned and nothing changes. An empty inbox means that it is done."""
        ...

    async def close_intake(self, turn: int, fence: int) -> None:
        """Enter `finishing` whatever is pending (the turn ended by itself, failed or was stopped)."""
        ...

    async def bring_code(self, turn: int, fence: int) -> None:
        """The session's code is about to be written into its owner's sandbox: from now on it counts as
        checked out there, whatever becomes of the turn."""
        ...

    async def set_ready(self, turn: int, fence: int, commit: str, repository: int = 0) -> None:
        """The session has finished, unpublished work at `commit`."""
        ...

    async def begin_push(self, turn: int, fence: int) -> bool:
        """From here on it is too late to stop. False: a stop came before."""
        ...

    async def set_published(
        self, turn: int, fence: int, commit: str, pull_request: PullRequest, repository: int = 0
    ) -> None:
        """Pushed and opened: `ready` is empty again, the pull request is an alias of the session."""
        ...

    async def finish(self, turn: int, fence: int, state: TurnState, final: Final) -> int | None:
        """End the turn: state, FINAL saying in its thread, a NOTE with a link in the session's
        other threads, and the follow-up turn for pending, deferred and written-but-not-consumed
        inputs (its id), in one transaction. After `stopped` by a stop these are held instead,
        unless an interrupting input is among them, which starts the next turn with them."""
        ...

    async def set_timeline(self, turn: int, ref: MessageRef) -> None: ...

    async def running(self) -> int:
        """How many turns are past `queued` and open."""
        ...

    # outbox

    async def due(self, now: float, limit: int) -> Sequence[OutboxItem]:
        """The head of each thread's lane, where it is due. One that amends an earlier saying has that
        one's post as its `ref`."""
        ...

    async def sending(self, item: int) -> None: ...

    async def sent(self, item: int, ref: MessageRef | None) -> None:
        """Said. For a TIMELINE saying the turn's `timeline` is set in the same transaction."""
        ...

    async def postpone(self, item: int, until: float, error: str) -> None: ...

    async def refused(self, item: int, error: str) -> None:
        """Given up: it can never be said there. The lane goes on. What it asked of people is a no."""
        ...

    async def shared_files(self) -> Sequence[str]:
        """The paths of our copies of files that are still to be said."""
        ...

    # sandboxes

    async def sandbox(self, key: SandboxKey) -> SandboxRow | None: ...

    async def save_sandbox(self, key: SandboxKey, provider_id: str, host: str) -> SandboxRow:
        """Remember the sandbox of a key. When it replaces another one, which is gone, the person's
        sessions forget what was only in there: resume tokens and ready commits."""
        ...

    async def note_sandbox_host(self, id: int, provider_id: str, host: str) -> None:
        """Where it was found to be, if nobody knew that. Nothing else of it changes."""
        ...

    async def hold_sandbox(self, key: SandboxKey, holder: str, seconds: float) -> bool:
        """Be alone with the sandbox of a key, or with making it, for `seconds` from now. Whoever holds it
        may hold it longer. False: another one does."""
        ...

    async def release_sandbox(self, key: SandboxKey, holder: str) -> None:
        """Let others have it. No error when it is theirs already."""
        ...

    async def sandbox_kept(self, person: int, id: str) -> SandboxRow | None:
        """The person's sandbox that its provider, whichever that is, calls by this id. None: it was deleted
        or replaced."""
        ...

    async def sandboxes(self, installation: str, provider: str = "") -> Sequence[SandboxRow]:
        """All that there are (those that were deleted and not replaced are left out). provider: of this one
        only, "": of each that there ever was."""
        ...

    async def checked_out(self, key: SandboxKey) -> Sequence[Repository]:
        """Repositories whose code is in the sandbox of a key, or may come any moment: of its person's
        sessions into which code was brought since it was made, or that have an open turn."""
        ...

    async def touch_sandbox(self, id: int) -> None:
        """It is in use now, and runs."""
        ...

    async def saw_sandbox(self, id: int, state: SandboxState) -> None:
        """How it is now; since when, where that is new."""
        ...

    async def pin_sandbox(self, id: int, pinned: bool) -> None:
        """Pinned ones are neither idle nor expired. Both ways it counts as used now."""
        ...

    async def forget_sandbox(self, id: int, provider_id: str, why: str) -> None:
        """It exists no more: its person's sessions forget what was only in there (resume tokens, ready
        commits), and threads that lose work by it are told. Its row stays, without a sandbox and with `why`
        (a clause), until the next is saved. Nothing happens when it was replaced meanwhile."""
        ...

    async def idle_sandboxes(self, before: float) -> Sequence[SandboxRow]:
        """Unpinned sandboxes last used before `before` that are not known to be stopped, whose person has no
        open turn past queued."""
        ...

    async def spare_sandboxes(self, tenant: str) -> Sequence[SandboxRow]:
        """Running sandboxes of a tenant whose person has no open turn past queued: pinned ones last, before
        them the longest unused first."""
        ...

    async def expired_sandboxes(self, before: float) -> Sequence[SandboxRow]:
        """Unpinned sandboxes last used before `before`, whose person has no open turn at all."""
        ...

    async def departed_sandboxes(self, before: float) -> Sequence[SandboxRow]:
        """Those, pinned or not, of people all of whose accounts are gone since before `before`, and who have
        no open turn."""
        ...

    async def new_reset(
        self,
        message_key: str,
        sandbox: SandboxRow,
        thread: ThreadKey,
        told: Sequence[str],
        deadline: float,
    ) -> Reset:
        """A person wants their sandbox deleted and is told first what it costs. One per message."""
        ...

    async def reset(self, number: int) -> Reset | None: ...

    # trail

    async def audit(self, actor: str, action: str, target: str, detail: str) -> None: ...
