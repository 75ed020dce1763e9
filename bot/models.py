"""The vocabulary: frozen values, standard library only. Times are Unix seconds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import ClassVar

from bot.events import Event

# Where people talk


@dataclass(frozen=True, slots=True)
class ThreadKey:
    """A Slack thread (scope "team/channel", id the root's ts) or a GitHub issue or pull request
    (scope the repository's id, id its number). An empty id: the thread is yet to be opened."""

    surface: str
    scope: str
    id: str

    def __str__(self) -> str:
        return f"{self.surface}:{self.scope}:{self.id}"

    @classmethod
    def parse(cls, text: str) -> ThreadKey:
        surface, scope, id = text.split(":", 2)
        return cls(surface, scope, id)


def branch_alias(repository_id: int, branch: str) -> str:
    return f"branch:{repository_id}:{branch}"


@dataclass(frozen=True, slots=True)
class MessageRef:
    """Where one message is, for a reaction or an edit: `place` is a channel or "owner/name",
    `id` a ts, an issue number or a comment id, `kind` the surface's own kind of it."""

    surface: str
    place: str
    id: str
    kind: str = "message"
    url: str = ""


@dataclass(frozen=True, slots=True)
class Identity:
    """A human on one surface, in one tenant ("slack:T1", "github:installation-id").

    user: the surface's id of the account, for ever the same. name: how people call them now.
    """

    surface: str
    tenant: str
    user: str
    name: str


@dataclass(frozen=True, slots=True)
class Person:
    id: int
    tenant: str
    identity: Identity


@dataclass(frozen=True, slots=True)
class Standing:
    """Whether we may still work for a tenant, or for an account in it ("": for all of it), or on a repository
    or all of an installation's (the forge's ids; 0: not about one). why: a clause that says why not; "": we
    may."""

    tenant: str = ""
    account: str = ""
    repository: int = 0
    installation: int = 0
    why: str = ""


@dataclass(frozen=True, slots=True)
class Closing:
    """A pull request that people merged or closed, or (open) opened again. repository: the forge's id."""

    repository: int
    number: int
    open: bool = False


@dataclass(frozen=True, slots=True)
class Repository:
    """A repository that our App may work on. `id` is the forge's and survives renames."""

    id: int
    full_name: str
    default_branch: str
    private: bool
    installation: int


@dataclass(frozen=True, slots=True)
class Delivery:
    """One event as a surface handed it to us: verified, stored raw, not yet understood."""

    surface: str
    id: str
    kind: str
    body: bytes
    received_at: float
    lane: str = ""  # deliveries of one lane (a thread, as far as the edge can tell) go one by one


class Verb(StrEnum):
    """Words after the mention that are commands, not prompts."""

    STOP = "stop"
    STATUS = "status"
    PUBLISH = "publish"
    HELP = "help"
    SANDBOX = "sandbox"  # option "do": what about it; "number": which reset is meant
    CHANNEL = "channel"
    GET = "get"  # option "path": a file of the workspace
    PREVIEW = "preview"  # option "port": what is served there
    APPROVE = "approve"
    DENY = "deny"
    ANSWER = "answer"  # one of the options of a question; there is no word for it


class Mode(StrEnum):
    """What a message during a turn does to it."""

    STEER = "steer"
    QUEUE = "queue"
    INTERRUPT = "interrupt"


@dataclass(frozen=True, slots=True)
class Attachment:
    """A file that came with a message. id: the surface's own. type: its media type. size: bytes."""

    id: str
    name: str
    type: str = ""
    size: int = 0


@dataclass(frozen=True, slots=True)
class Message:
    """What somebody said to us, parsed at the edge.

    key: the surface's own id of the message: the same said twice is one effect.
    sent: sorts a session's messages in the order they were written, whatever their surfaces: Unix
        seconds with six decimals ("1795248000.000100"), then "#" and a tie-breaker where one is needed.
    addressed: it names us (mention, direct message, slash command, label), so it may start a
        session; other replies only count in threads that have one.
    text: the person's words, without mention and options. background: words of others that go
        with it (an issue's body), which are data and never instruction.
    repository: the full name of the one that the thread is in; "" where threads are in none.
    pull_request: the thread is one.
    revises: the key of the earlier message that this one edits, or deletes when `withdrawn`.
    private: where an answer only for the author goes (a slash command's response URL).
    """

    key: str
    thread: ThreadKey
    author: Identity
    sent: str
    text: str
    ref: MessageRef | None = None
    addressed: bool = False
    verb: Verb | None = None
    mode: Mode = Mode.STEER
    options: Mapping[str, str] = field(default_factory=dict)
    repository: str = ""
    pull_request: bool = False
    title: str = ""
    background: str = ""
    revises: str = ""
    withdrawn: bool = False
    private: str = ""
    attachments: tuple[Attachment, ...] = ()


@dataclass(frozen=True, slots=True)
class Remark:
    """An earlier message of the thread, for the prompt's context."""

    author: str
    text: str
    permitted: bool = False


# The work


class Fate(StrEnum):
    PENDING = "pending"
    WRITTEN = "written"
    CONSUMED = "consumed"
    DEFERRED = "deferred"
    DROPPED = "dropped"
    HELD = "held"  # left over after Stop: kept, told, started only by the next message


class TurnState(StrEnum):
    QUEUED = "queued"
    PREPARING = "preparing"
    RUNNING = "running"
    FINISHING = "finishing"
    DONE = "done"
    FAILED = "failed"
    STOPPED = "stopped"

    @property
    def open(self) -> bool:
        return self in (TurnState.QUEUED, TurnState.PREPARING, TurnState.RUNNING, TurnState.FINISHING)


class TurnKind(StrEnum):
    AGENT = "agent"
    PUBLISH = "publish"  # no agent: publishes commits that an earlier turn left ready


@dataclass(frozen=True, slots=True)
class Choice:
    """Which agent is wanted, and how it should work: model and effort in the agent's own words, permissions
    in ours (bot.agents.codec.Permissions); "": as before."""

    agent: str = ""
    model: str = ""
    effort: str = ""
    permissions: str = ""

    def __bool__(self) -> bool:
        return bool(self.agent or self.model or self.effort or self.permissions)


@dataclass(frozen=True, slots=True)
class OfferedModel:
    """A model that an agent lists; name "": whichever it has. efforts: how hard it can be told to think, from
    little to much; None: not told."""

    name: str
    efforts: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Offered:
    """What can be chosen of an agent, as it lists it. complete: beginnings of names for which its list is
    whole ("anthropic/"; "" is the beginning of all): such a name that is not listed, the agent does not have.
    """

    models: tuple[OfferedModel, ...]
    complete: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(model.name for model in self.models if model.name)

    def efforts_of(self, model: str) -> tuple[str, ...] | None:
        """None: not known. Without names there is one model at most, whatever it is called."""
        known = model if self.names else ""
        return next((one.efforts for one in self.models if one.name == known), None)

    def is_whole_for(self, model: str) -> bool:
        return model.startswith(self.complete) if self.complete else False


@dataclass(frozen=True, slots=True)
class Offers:
    """What an agent lists, and the version that it is pinned to ("": none)."""

    agent: str
    version: str
    offered: Offered


@dataclass(frozen=True, slots=True)
class Memory:
    """What continues an agent's conversation: its own token for it, which agent of which version has it,
    and the sandbox (its provider's id) that keeps it. It is of no use to another agent or elsewhere."""

    token: str
    agent: str = ""
    version: str = ""
    box: str = ""


@dataclass(frozen=True, slots=True)
class Past:
    """An earlier turn of a session: who asked for what, and how it ended."""

    asked: tuple[Remark, ...]
    outcome: Outcome
    text: str


@dataclass(frozen=True, slots=True)
class NewSession:
    """What a session is made of at its start. `repository` None: we have to ask. since: `sent` of the
    message that makes it; what was said in its thread before, without naming us, is none of its input."""

    id: str
    tenant: str
    owner: int
    thread: ThreadKey
    repository: Repository | None
    agent: str
    model: str = ""
    title: str = ""
    effort: str = ""
    since: str = ""
    permissions: str = ""
    further: tuple[Repository, ...] = ()


@dataclass(frozen=True, slots=True)
class Further:
    """A repository that a session works on besides its first: in a worktree of its own (tree: its directory),
    on a branch of the same name, with a pull request of its own. left_out: why it cannot be worked on now;
    "": it can. The rest as in Session."""

    repository: Repository
    tree: str
    base: str = ""
    base_sha: str = ""
    ready: str = ""
    published: str = ""
    pull_request: int = 0
    pull_request_url: str = ""
    published_in: int = 0
    left_out: str = ""


# The directory of a session's first worktree has the same name for ever: agents know conversations by it.
TREE = "code"


@dataclass(frozen=True, slots=True)
class Stale:
    """Which sessions have worktrees to put away, as times. worked: the last turn ended before. closed: so did
    it, and all pull requests were merged or closed before. tried: if it was tried in vain, then before."""

    worked: float
    closed: float
    tried: float


@dataclass(frozen=True, slots=True)
class Session:
    """base: the branch that the work starts from and that the pull request goes to. base_sha: the commit that
    the session's branch was made from. ready: a commit that is finished but not published. published: the
    last commit that we pushed. published_in: the turn that did. pull_request: its number and URL.
    permissions: as people chose; "": the installation's. named: what the agent calls the work. description:
    how it would have what is not published yet described. further: other repositories than `repository`, to
    which all of this belongs, as does the directory `tree`. left_out: those that it cannot work on
    now. opened_in: the id of the sandbox that its worktrees were last opened in. hooked_in: the same, once
    the repositories' hooks were run since."""

    id: str
    tenant: str
    owner: Person
    thread: ThreadKey
    repository: Repository | None
    agent: str
    model: str
    title: str
    branch: str = ""
    base: str = ""
    base_sha: str = ""
    memory: Memory = Memory("")
    ready: str = ""
    published: str = ""
    pull_request: int = 0
    pull_request_url: str = ""
    created_at: float = 0.0
    effort: str = ""
    since: str = ""
    named: str = ""
    description: str = ""
    permissions: str = ""
    further: tuple[Further, ...] = ()
    tree: str = TREE
    published_in: int = 0
    left_out: tuple[Further, ...] = ()
    opened_in: str = ""
    hooked_in: str = ""

    def each(self) -> tuple[Session, ...]:
        """Itself, and as it is for each further repository: its branch, work and pull request there."""
        return (self, *map(self.within, self.further))

    def within(self, one: Further) -> Session:
        """As it is for one of its further repositories."""
        return replace(
            self,
            repository=one.repository,
            tree=one.tree,
            base=one.base,
            base_sha=one.base_sha,
            ready=one.ready,
            published=one.published,
            pull_request=one.pull_request,
            pull_request_url=one.pull_request_url,
            published_in=one.published_in,
            further=(),
            left_out=(),
        )

    @property
    def repositories(self) -> tuple[Repository, ...]:
        """The first is what the work is named after."""
        return tuple(one.repository for one in self.each() if one.repository is not None)

    @property
    def works_with(self) -> tuple[str, str, str]:
        return (self.agent, self.model, self.effort)

    @property
    def any_ready(self) -> bool:
        """Is there finished, unpublished work, in whichever repository?"""
        return any(one.ready for one in self.each())


@dataclass(frozen=True, slots=True)
class NewInput:
    """A message's words on their way to the agent."""

    message_key: str
    author: Identity
    sent: str
    text: str
    ref: MessageRef | None
    background: str = ""
    mode: Mode = Mode.STEER
    choice: Choice = Choice()
    attachments: tuple[Attachment, ...] = ()


@dataclass(frozen=True, slots=True)
class Input:
    """A row of a session's ordered input log."""

    id: int
    message_key: str
    author: Identity
    sent: str
    text: str
    ref: MessageRef | None
    background: str
    mode: Mode
    fate: Fate
    turn: int | None
    thread: ThreadKey
    choice: Choice = Choice()
    attachments: tuple[Attachment, ...] = ()


@dataclass(frozen=True, slots=True)
class Turn:
    """out_offset, err_offset: bytes of the agent's output that are recorded. in_offset: bytes of
    stdin in the journal. codec_state: the codec's own, JSON. timeline: where the picture is."""

    id: int
    session: str
    thread: ThreadKey
    kind: TurnKind
    state: TurnState
    attempt: int
    fence: int
    out_offset: int
    err_offset: int
    in_offset: int
    codec_state: Mapping[str, object]
    stop_by: str
    timeline: MessageRef | None
    queued_at: float
    started_at: float
    asked_to_commit: bool = False


class AskKind(StrEnum):
    APPROVAL = "approval"
    QUESTION = "question"


class AskState(StrEnum):
    OPEN = "open"
    SETTLED = "settled"  # a person said it, or we did
    EXPIRED = "expired"  # nobody did in time, or could (`text` says why), which is a no
    WITHDRAWN = "withdrawn"  # the agent does not wait for it any more


@dataclass(frozen=True, slots=True)
class NewAsk:
    """An agent waits for a person's word. id: the agent's own name of it. detail: exactly what it would do.
    deadline: Unix seconds. refused: why it is a no without anybody being asked, else ""."""

    id: str
    kind: AskKind
    title: str
    detail: str
    options: tuple[str, ...]
    deadline: float
    refused: str = ""


@dataclass(frozen=True, slots=True)
class Ask:
    """What was asked, and what came of it. asked: whose word counts, beside the session's owner's.
    allowed: an approval's answer; text: a question's, or why there is none. by: who settled it."""

    id: int
    turn: int
    name: str
    kind: AskKind
    title: str
    detail: str
    options: tuple[str, ...]
    asked: Identity
    deadline: float
    state: AskState = AskState.OPEN
    allowed: bool = False
    text: str = ""
    by: str = ""


class AskOutcome(StrEnum):
    """What became of a person's answer."""

    SETTLED = "settled"
    OVER = "over"  # it was settled before
    UNKNOWN = "unknown"  # nothing of that number was asked in the session
    DUPLICATE = "duplicate"


@dataclass(frozen=True, slots=True)
class Inbox:
    """What has come in for a running turn: who stopped it ("" = nobody), inputs to write now, and answers
    that its agent was not told yet."""

    stop_by: str
    inputs: tuple[Input, ...]
    answers: tuple[Ask, ...] = ()


class Disposition(StrEnum):
    """What became of an admitted message."""

    STARTED = "started"  # a new turn
    JOINED = "joined"  # goes into the first prompt of a turn that is still preparing
    STEERED = "steered"  # on its way into the running turn
    QUEUED = "queued"  # waits for the next turn
    ASKED = "asked"  # kept until we know which repository is meant
    DUPLICATE = "duplicate"  # seen before: no effect


@dataclass(frozen=True, slots=True)
class Admitted:
    disposition: Disposition
    session: str
    turn: int | None


class StopOutcome(StrEnum):
    STOPPING = "stopping"
    NOTHING = "nothing"  # no open turn
    PUBLISHED = "published"  # too late: the push is under way or done
    DUPLICATE = "duplicate"


@dataclass(frozen=True, slots=True)
class Record:
    """Everything that one step of a turn changes, written in one fenced transaction.

    stdin: bytes journalled at the turn's in_offset, to be written after the transaction.
    given: the inputs whose words the step gives to the agent, as they were read. newest: where others wrote
        them than the owner, the owner's newest turn when it was asked whether they may.
    asked: what the agent asks people now. withdrawn: the agent's names of what it asks no more. told: the
        asks whose answers are in `stdin`.
    """

    events: tuple[Event, ...] = ()
    out_offset: int | None = None
    err_offset: int | None = None
    codec_state: Mapping[str, object] | None = None
    stdin: bytes = b""
    given: tuple[Input, ...] = ()
    newest: int | None = None
    written: tuple[int, ...] = ()
    consumed: tuple[int, ...] = ()
    deferred: tuple[int, ...] = ()
    memory: Memory | None = None
    asked_to_commit: bool | None = None
    asked: tuple[NewAsk, ...] = ()
    withdrawn: tuple[str, ...] = ()
    told: tuple[int, ...] = ()
    offers: Offers | None = None


@dataclass(frozen=True, slots=True)
class StoredEvent:
    id: int
    at: float
    event: Event


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to drive a turn, until the lease runs out. Every later write carries the fence."""

    turn: Turn
    session: Session
    fence: int


@dataclass(frozen=True, slots=True)
class Waiting:
    """The turn may not start yet: `place` turns are before it (1 = next), because of `cap`."""

    place: int
    cap: str


@dataclass(frozen=True, slots=True)
class Caps:
    """How many turns may be open past `queued` at once; sandboxes: of how many people of a tenant. 0: no
    limit."""

    total: int = 0
    tenant: int = 0
    person: int = 0
    sandboxes: int = 0


# What is said


class SayingKind(StrEnum):
    TIMELINE = "timeline"  # the first post of a turn's picture; later pictures redraw it
    FINAL = "final"
    NOTE = "note"
    QUESTION = "question"
    RECEIPT = "receipt"
    ASK = "ask"  # an agent's question, or what it wants to do
    ASKED = "asked"  # the same, redrawn where it stands: what came of it
    FILE = "file"  # a file that an agent shares


class Mark(StrEnum):
    """A receipt on somebody's message."""

    SEEN = "seen"
    CONSUMED = "consumed"
    QUEUED = "queued"
    DROPPED = "dropped"
    REFUSED = "refused"


class Outcome(StrEnum):
    PUBLISHED = "published"
    ANSWERED = "answered"
    UNPUBLISHED = "unpublished"
    FAILED = "failed"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class PullRequest:
    number: int
    url: str
    title: str
    head: str
    base: str
    repository: str
    commits: int = 0
    files: int = 0
    added: int = 0
    removed: int = 0
    created: bool = True  # False: an earlier turn's, updated


@dataclass(frozen=True, slots=True)
class Final:
    """How a turn ended, said once. `notes` are single lines people must know (what the bot
    committed itself, what was held back)."""

    outcome: Outcome
    text: str
    reason: str = ""
    mend: str = ""
    pull_request: PullRequest | None = None
    notes: tuple[str, ...] = ()
    seconds: float = 0.0
    branch: str = ""
    further: tuple[PullRequest, ...] = ()  # those in the session's further repositories

    @property
    def pull_requests(self) -> tuple[PullRequest, ...]:
        return (*((self.pull_request,) if self.pull_request else ()), *self.further)


@dataclass(frozen=True, slots=True)
class SharedFile:
    """A file for people to see. path: our own copy of it, one of the data directory's `shared`, which is
    deleted when it was said. name: what people see, in the agent's words, as is `title`, a line about it or
    "". size: in bytes, measured anew before it is shown."""

    path: str
    name: str
    title: str
    size: int


@dataclass(frozen=True, slots=True)
class Saying:
    """Something to be said exactly once. `key` is its idempotency key.

    mention: the surface user id to call by name. private: an answer only for its author. amends: the key of
    the saying that this one is drawn over; `ref` is then where that one stands (None: nowhere). reset: the
    number of the reset that it asks a person to confirm; 0: of none.
    """

    key: str
    kind: SayingKind
    thread: ThreadKey
    text: str = ""
    mention: str = ""
    ref: MessageRef | None = None
    mark: Mark | None = None
    final: Final | None = None
    turn: int | None = None
    private: str = ""
    ask: Ask | None = None
    amends: str = ""
    file: SharedFile | None = None
    reset: int = 0


@dataclass(frozen=True, slots=True)
class OutboxItem:
    """A saying's row. `tried`: it was marked `sending` before, so look for it before sending."""

    id: int
    saying: Saying
    attempts: int
    tried: bool
    created_at: float


# Sandboxes


class SandboxState(StrEnum):
    RUNNING = "running"
    STOPPED = "stopped"
    ARCHIVED = "archived"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class SandboxKey:
    """One persistent sandbox per person in a tenant, per provider, per installation of ours."""

    installation: str
    tenant: str
    person: int
    provider: str

    INSTALLATION: ClassVar = "sandpiper.installation"
    TENANT: ClassVar = "sandpiper.tenant"
    PERSON: ClassVar = "sandpiper.person"

    def labels(self, deleted: float = 0.0) -> dict[str, str]:
        """deleted: when the one was made (Unix time) that was deleted, and that this one comes after. Others
        of before have not the same labels, so a provider that looks for its like takes none of them."""
        after = {"sandpiper.after": str(int(deleted * 1000))} if deleted else {}
        return {
            self.INSTALLATION: self.installation,
            self.TENANT: self.tenant,
            self.PERSON: str(self.person),
            "sandpiper.purpose": "agent",
            **after,
        }


ACCOUNT = "account:"


def host_of_account(id: str) -> str:
    """For sandboxes that are reached from anywhere, with a key of their account at the provider."""
    return f"{ACCOUNT}{id}" if id else ""


def account_of(host: str) -> str:
    """ "": that host is no account, but a disk or a machine."""
    return host.removeprefix(ACCOUNT) if host.startswith(ACCOUNT) else ""


@dataclass(frozen=True, slots=True)
class SandboxRow:
    """provider_id: "" after it was deleted; `lost` then says why, until there is a new one. host: where it
    can only be reached from: a disk or machine, an account at its provider; "": from anywhere, or nobody has
    noted it yet. state: as last seen, since `state_at`; None: not seen yet."""

    id: int
    key: SandboxKey
    provider_id: str
    host: str
    created_at: float
    last_used: float
    pinned: bool = False
    state: SandboxState | None = None
    state_at: float = 0.0
    lost: str = ""


@dataclass(frozen=True, slots=True)
class Reset:
    """A person was told what would be lost with their sandbox, and may say yes to it by its number, until
    `deadline`. provider_id: the sandbox that was spoken of. told: the sessions whose work it would cost."""

    number: int
    sandbox: SandboxRow
    provider_id: str
    thread: ThreadKey
    told: tuple[str, ...]
    deadline: float


@dataclass(frozen=True, slots=True)
class Launch:
    """How a program is started in a sandbox. `secrets` reach it through its environment only.

    visible: directories besides the home that it may see (others stay hidden where the provider
        can do so). loopback: TCP ports on the bot's own host, named by the operator, that appear
        at the same port on the box's loopback. ours: a command of the bot's own, whose PATH has
        the system's programs only and none from the home. installs: ours too, and the only kind that may
        write among the agents' programs; of the home and of sessions it sees nothing, where the provider
        can do so. entrance: a path in a directory of `visible`; where the provider needs it, what the program
        serves on its loopback is reached by a unix socket there. private: directories, from the home, that
        programs of the same session have for themselves where the provider separates sessions: empty at
        first, and in the place of what the home has there.
    """

    argv: tuple[str, ...]
    cwd: str
    env: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    visible: tuple[str, ...] = ()
    loopback: tuple[int, ...] = ()
    ours: bool = False
    installs: bool = False
    entrance: str = ""
    private: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DeniedHost:
    """host:port that the egress rules refused. setting: what would let it through; "": nothing would."""

    host: str
    setting: str


@dataclass(frozen=True, slots=True)
class ExecResult:
    code: int
    out: bytes
    err: bytes


@dataclass(frozen=True, slots=True)
class Chunk:
    """Output from one offset on. `next` is the offset after `data`; `eof` when nothing follows."""

    data: bytes
    next: int
    eof: bool


@dataclass(frozen=True, slots=True)
class ProcessStatus:
    running: bool
    exit_code: int | None
    in_offset: int
    last_activity: float


# Code


@dataclass(frozen=True, slots=True)
class Lent:
    """What git in a sandbox reads one repository's code from, and the bearer token that it shows there."""

    url: str
    grant: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class CodeBundle:
    """Commits from the forge on their way into a sandbox.

    refs: branch name → commit, as on the forge now. empty: there is no bundle, since the sandbox had
    everything, or gets it on demand: `lent`.
    """

    base: str
    refs: Mapping[str, str]
    empty: bool
    lent: Lent | None = None


@dataclass(frozen=True, slots=True)
class Work:
    """A session's commits on their way out: `base_sha`..`head` on `branch`."""

    branch: str
    base: str
    base_sha: str
    head: str
    commits: int
    subjects: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Beside:
    """The worktree of a further repository, made from its branch `base`."""

    repository: str
    directory: str
    base: str


@dataclass(frozen=True, slots=True)
class Place:
    """A session's workspace, opened: directories as the agent sees them. hooks: whether a repository may have
    something to be run before the agent starts. beside: of further repositories."""

    directory: str
    visible: tuple[str, ...]
    branch: str
    base: str
    base_sha: str
    notes: tuple[str, ...] = ()
    hooks: bool = True
    beside: tuple[Beside, ...] = ()
