"""How an ACP conversation begins: handshake, session, and what is chosen in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from bot.agents.acp.choices import choices_of, mode_for, offers_of
from bot.agents.acp.errors import AUTH_REQUIRED, cause_of, words_of
from bot.agents.acp.state import Offer, State
from bot.agents.codec import Permissions, Steering
from bot.agents.mcp import SERVER, SHELL
from bot.agents.steps import StepBuilder
from bot.agents.wire import SUBJECT_CHARS, TEXT_BYTES, Frame, part, string, token
from bot.events import AgentStarted, Cause

PROTOCOL = 1


@dataclass(frozen=True, slots=True)
class Profile:
    """What is known of an agent before it is started. opening: `_meta` of what opens its session."""

    name: str
    steering: Steering = Steering.INTERRUPT
    modes: Mapping[Permissions, str] = field(default_factory=dict)
    auth_method: str = ""
    opening: Callable[[Permissions, str], Frame] = lambda permissions, cwd: {}


def call(state: State, out: StepBuilder, method: str, params: Frame, purpose: str = "") -> str:
    """A request of ours. Returns its id."""
    state.requests += 1
    id = state.requests
    state.calls[str(id)] = purpose or method
    out.send({"jsonrpc": "2.0", "id": id, "method": method, "params": params})
    return str(id)


@dataclass(slots=True)
class Setup:
    """Goes on with every answer until the state's stage is `ready`, or `failed` with the failure."""

    state: State
    out: StepBuilder
    profile: Profile

    def hello(self) -> None:
        capabilities = {
            # What the agent reads and runs, it reads and runs in its sandbox itself.
            "fs": {"readTextFile": False, "writeTextFile": False},
            "terminal": False,
            "elicitation": {"form": {}},
            "session": {"notices": {}, "compaction": {}},
        }
        client = {"name": "sandpiper", "title": "Sandpiper", "version": "1"}
        call(
            self.state,
            self.out,
            "initialize",
            {"protocolVersion": PROTOCOL, "clientInfo": client, "clientCapabilities": capabilities},
        )

    def answered(self, purpose: str, result: Frame, error: Frame) -> None:
        match purpose:
            case "initialize":
                self._greeted(result, error)
            case "authenticate" if error:
                self._fail(error, Cause.LOGIN)
            case "authenticate":
                self._open()
            case "session/new" | "session/load" | "session/resume":
                self._opened(result, error)
            case _:
                self._chosen(purpose.removeprefix("choose "), result, error)

    # the handshake

    def _greeted(self, result: Frame, error: Frame) -> None:
        if error:
            self._fail(error)
            return
        state, info = self.state, part(result, "agentInfo")
        state.title = self.out.clean(string(info, "title") or string(info, "name"), 80) or self.profile.name
        state.version = self.out.clean(string(info, "version"), 80)
        spoken = result.get("protocolVersion")
        if spoken != PROTOCOL:
            self._fail({"message": f"{state.title} speaks version {spoken!r} of ACP; I speak {PROTOCOL}."})
            return
        capabilities = part(result, "agentCapabilities")
        state.steers = part(result, "_meta", "steering").get("supported") is True
        if state.resume:
            able = part(capabilities, "sessionCapabilities")
            if isinstance(able.get("resume"), dict):
                state.stage = "session/resume"  # it does not send the history again
            elif capabilities.get("loadSession") is True:
                state.stage = "session/load"
            else:
                self._fail({"message": f"{state.title} cannot go on with an earlier session."}, Cause.RESUME)
                return
        else:
            state.stage = "session/new"
        if self.profile.auth_method:
            call(self.state, self.out, "authenticate", {"methodId": self.profile.auth_method})
        else:
            self._open()

    def _open(self) -> None:
        params: dict[str, object] = {"cwd": self.state.cwd, "mcpServers": self._servers()}
        if meta := self.profile.opening(Permissions(self.state.permissions), self.state.cwd):
            params["_meta"] = meta
        if self.state.resume:
            params["sessionId"] = self.state.resume
        call(self.state, self.out, self.state.stage, params)

    def _servers(self) -> list[Frame]:
        """Where people are asked, they would be asked for each call: its name is no proof of whose it is."""
        if not self.state.side_tools or self.state.permissions != Permissions.AUTO:
            return []
        return [{"name": SERVER, "command": SHELL, "args": [self.state.side_tools], "env": []}]

    def _opened(self, result: Frame, error: Frame) -> None:
        state = self.state
        if error:
            missing = bool(state.resume) and error.get("code") != AUTH_REQUIRED
            self._fail(error, Cause.RESUME if missing else None)
            return
        state.session = state.resume or token(result, "sessionId")
        if not state.session:
            self._fail({"message": f"{state.title} opened a session without an id."})
            return
        # What a resumed session has cost is told during its replay, or nobody knows it.
        state.cost_before = state.cost if state.resume else max(state.cost, 0)
        models = part(result, "models")
        state.offers = offers_of(result)
        self.out.offer(choices_of(state.offers), complete=("",))
        model = state.offers.get("model")
        state.stage, state.choosing = "setup", ["model", "effort", "mode"]
        current = self.out.clean(string(models, "currentModelId") or (model.current if model else ""), 80)
        wanted = state.model or current
        self.out.events.append(AgentStarted(self.profile.name, state.session, state.version, wanted))
        self._choose()

    def _fail(self, error: Frame, cause: Cause | None = None) -> None:
        """There is no session, and there will be none."""
        state = self.state
        state.stage, state.failure = "failed", self.out.clean(words_of(error), TEXT_BYTES)
        found = cause or cause_of(error)
        # Before a prompt nothing has asked a model.
        state.cause = Cause.UNKNOWN.value if found is Cause.MODEL else found.value

    # the setup: model, effort and mode, one after the other, since one changes what the others offer

    def _choose(self) -> None:
        state = self.state
        while state.choosing:
            what = state.choosing.pop(0)
            # The list of models can be long; modes are asked for again when a plan is approved.
            offer = state.offers.get(what) if what == "mode" else state.offers.pop(what, None)
            value = self._wanted(what, offer)
            # A resumed session may have kept the mode of another turn, whatever it says.
            if (
                offer is None
                or not value
                or (value == offer.current and not state.resume and not state.rounds)
            ):
                continue
            self._set(what, offer, value)
            return
        state.stage = "ready"

    def choose_mode(self) -> None:
        """Again, when the permissions have changed."""
        self.state.stage, self.state.choosing = "setup", ["mode"]
        self._choose()

    def _wanted(self, what: str, offer: Offer | None) -> str:
        state = self.state
        if what == "mode":
            return self._mode(offer)
        value = state.model if what == "model" else state.effort
        if not value or (offer and value in offer.values):
            return value
        listed = ", ".join(offer.values[:12]) if offer else "none to choose from"
        now = f"; it goes on with {offer.current}" if offer and offer.current else ""
        self.out.notice(f"{state.title} does not offer the {what} {value} ({listed}){now}.")
        return ""

    def _mode(self, offer: Offer | None) -> str:
        permissions = Permissions(self.state.permissions)
        found = mode_for(permissions, offer, self.profile.modes.get(permissions, ""))
        self.state.planning = permissions is Permissions.PLAN and bool(found)
        if found or permissions is not Permissions.PLAN:
            return found
        self.state.plans_by_words = True
        return mode_for(Permissions.ASK, offer, self.profile.modes.get(Permissions.ASK, ""))

    def _set(self, what: str, offer: Offer, value: str) -> None:
        params: dict[str, object] = {"sessionId": self.state.session}
        if offer.via:
            params |= {"configId": offer.via, "value": value}
            call(self.state, self.out, "session/set_config_option", params, f"choose {what}")
        else:
            method, name = (
                ("session/set_model", "modelId") if what == "model" else ("session/set_mode", "modeId")
            )
            call(self.state, self.out, method, params | {name: value}, f"choose {what}")

    def _chosen(self, what: str, result: Frame, error: Frame) -> None:
        if error:
            why = self.out.clean(words_of(error), SUBJECT_CHARS * 2)
            self.out.notice(f"{self.state.title} refused the {what} that I asked for: {why}")
        # A model has efforts of its own.
        self.state.offers |= {
            name: offer for name, offer in offers_of(result).items() if name in self.state.choosing
        }
        if self.state.stage == "setup":
            self._choose()
