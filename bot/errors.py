"""What can go wrong, by name. Each message says what happened and what mends it."""

from __future__ import annotations


class SandpiperError(Exception):
    """Base of every error we raise on purpose.

    `mend` is the sentence for the person who can do something about it; it may be empty. `repeatable`:
    when that is done, the same can be tried again; else something about the work has to change.
    """

    repeatable = True

    def __init__(self, what: str, mend: str = "") -> None:
        super().__init__(what if not mend else f"{what} {mend}")
        self.what = what
        self.mend = mend


class SettingsError(SandpiperError):
    """A setting is missing or wrong; the message names the variable."""


class StoreUnavailable(SandpiperError):
    """The store cannot be read or written now (full or broken disk, closed store). Nothing of what was
    to be written is; who drives a turn leaves it as it is, to be driven again."""


class DiskFull(SandpiperError):
    """No space left where the bot itself puts things down on their way in or out."""

    def __init__(self) -> None:
        super().__init__(
            "The bot's own disk is full.", "An operator has to make room where SANDPIPER_DATA_DIR is."
        )


class Denied(SandpiperError):
    """This person may not do this here."""


class NothingLeft(SandpiperError):
    """A turn's words are all of people who may not steer here any more: there is nothing to start."""


class LeaseLost(SandpiperError):
    """Another driver has claimed this turn since: stop touching it."""


class InputsChanged(SandpiperError):
    """People have edited or taken back words since they were read for the agent: read them again."""


# sandboxes


class SandboxError(SandpiperError):
    """Something about a sandbox or its provider failed (never a command's own exit code)."""


class ProviderUnavailable(SandboxError):
    """The provider cannot work here at all: a program, a right or a key is missing."""


class SandboxUnreachable(SandboxError):
    """It does not answer now. Retry, start, recover; never replace. retry_after: seconds before which its
    provider will not hear of it again; 0 = it did not say."""

    def __init__(self, what: str, mend: str = "", *, retry_after: float = 0.0) -> None:
        super().__init__(what, mend)
        self.retry_after = retry_after


class ProviderAway(SandboxUnreachable):
    """The provider itself does not answer, or has no time for us now: waiting helps."""


class SandboxElsewhere(SandboxUnreachable):
    """It is, or may be, where this bot does not reach: in another account, on another disk. Waiting does not
    help."""


class SandboxNotRunning(SandboxError):
    """It exists but is stopped: start it."""


class SandboxGone(SandboxError):
    """The provider says that it no longer exists."""


class SandboxFull(SandboxError):
    """No space left where the sandbox lives."""


class ProcessGone(SandboxError):
    """No such process (any more): its keeper and its spool are not there."""


class StaleFence(SandboxError):
    """The supervisor has seen a newer fence than ours."""


class InputGap(SandboxError):
    """Bytes before this offset never arrived; `have` is the offset to resend from."""

    def __init__(self, have: int) -> None:
        super().__init__(f"stdin has only {have} bytes so far.", "Resend from there.")
        self.have = have


# agents


class AgentMissing(SandpiperError):
    """The agent's program is not installed in the sandbox."""


class AgentUnknown(SandpiperError):
    """No agent of that name is configured."""


# workspaces and forges


class WorkspaceError(SandpiperError):
    """git in the sandbox refused; the message carries its last lines."""

    def __init__(self, what: str, mend: str = "", *, repeatable: bool = True) -> None:
        super().__init__(what, mend)
        self.repeatable = repeatable


class ForgeError(SandpiperError):
    """The code host refused or failed. `retryable` when trying again later may help."""

    def __init__(self, what: str, mend: str = "", *, retryable: bool = False) -> None:
        super().__init__(what, mend)
        self.retryable = retryable


class RepositoryUnknown(ForgeError):
    """No such repository, or our App is not installed on it."""


class PushRefused(ForgeError):
    """The branch was not updated: a rule, a lease or a permission stood against it."""

    def __init__(self, what: str, mend: str = "", *, repeatable: bool = True) -> None:
        super().__init__(what, mend)
        self.repeatable = repeatable


class BundleRefused(ForgeError):
    """The commits from the sandbox were not accepted by our own checks, and never will be."""

    repeatable = False


# surfaces


class SurfaceError(SandpiperError):
    """A surface refused for good: retrying the same call will not help."""


class FileRefused(SurfaceError):
    """A file is not fit to be shown: its copy is lost, it is too large, or one of our keys is in it."""


class SurfaceBusy(SandpiperError):
    """Try again after `retry_after` seconds (a limit, a 5xx or a lost connection)."""

    def __init__(self, what: str, retry_after: float) -> None:
        super().__init__(what)
        self.retry_after = retry_after


class Undecodable(SandpiperError):
    """A stored delivery could not be understood; it stays stored."""


# deadlines


class DeadlinePassed(SandpiperError):
    """A phase of a turn took longer than its setting allows; `phase` is the setting's name."""

    def __init__(self, phase: str, seconds: float) -> None:
        super().__init__(
            f"The turn's '{phase}' deadline of {seconds:g} s passed.",
            f"An operator can raise it with SANDPIPER_DEADLINE_{phase.upper()}.",
        )
        self.phase = phase
        self.seconds = seconds
