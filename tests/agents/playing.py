"""What real agents go through, for the integration tests and for the recorder of transcripts.

A scenario starts with a prompt and then plays: steers, stops, waits. What it leads to is asserted by
the tests, from the DrivenAgent that has gone through it.

All rigs share the names of their scenarios, so that one suite (tests/contracts/agent/test_live.py) can
ask the same of every agent. A scenario's prompt and script are the agent's own (its model calls its own
tools); what they lead to, and the plays, are the same:

| name | permissions, answerable | the model's script | play |
|---|---|---|---|
| tools | auto | runs COMMAND, then perhaps other tools; last words | to_its_end |
| steer | auto | runs a command with `sleep` for 1.5 s or more, then one more command; last words | steered |
| steer-last | auto | streams one long text of a second or more | steered_in_its_last_words(sign) |
| stop | auto | runs `sleep 60` | stopped_and_continued |
| stop-waiting | auto | runs `sleep 60` | stopped_with_a_steer_waiting |
| stop-at-once | auto | runs `sleep 60` | stopped_at_once |
| killed | auto | runs `sleep 60` | the rig's own: kills it once the conversation is on disk |
| resumed | auto | some words; `before="killed"` | to_its_end |
| error | auto | Refusal(400, …) | to_its_end |
| unauthorised | auto | Refusal(401, …) of the kind that a wrong key gets | to_its_end |
| limited | auto | Refusal(429, …) of the kind that a spent account gets | to_its_end |
| no-model | auto | Refusal(404, …) of the kind that an unknown model gets | to_its_end |
| rate-limited | auto | Refusal(429, …, retry_after=1), for ever | to_its_end |
| rate-limited-once | auto | the same once, then some words | to_its_end |
| failing | auto | Refusal(500, …) | to_its_end |
| failing-once | auto | the same once, then some words | to_its_end |
| logged-out | auto | never asked: `codec` of the scenario has no credential | to_its_end |
| approved | ask, answerable | runs `touch asked.txt`, last words | approved |
| denied | ask, answerable | the same | denied |
| withdrawn | ask, answerable | the same | withdrawn |
| unattended | ask, not answerable | the same | to_its_end |
| asked | auto, answerable | asks "Which colour?" (Red, Blue) by the agent's own tool; last words | asked |
| question | auto, not answerable | the same | to_its_end |
| planned | plan, answerable | lays out a plan by the agent's own means, then `touch asked.txt` | approved |
| replanned | plan, answerable | the same | refused_then_approved(script) |
| long | auto | runs LONG_COMMAND (5 MB of output), last words | to_its_end |
| picture | auto | some words; its prompt comes with a picture | to_its_end |
| garbage | auto | as `steer` | with_garbage |
| half-a-line | auto | as `steer` | steered, with `restarts` |
| delegated | auto | a sub-agent runs a command | to_its_end |
| steer-delegated | auto | a sub-agent runs `sleep 61` | steered |
| background | auto | runs LATE_COMMAND, in the background if it can; last words | to_its_last_words |
| plan | auto | sets a plan of two entries, "Read the code" and "Mend it" | to_its_end |

A rig leaves out what its agent cannot do, as its capabilities say; the rest it must have.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from bot.agents.codec import Codec, Permissions, Prompt, Task
from tests.agents.driven import DrivenAgent
from tests.agents.model.script import Refusal, Reply, Script
from tests.agents.model.server import ModelServer

CACHE = Path.home() / ".cache/sandpiper/agents"

# The words of plays and scripts that the suite looks for.
STEER = "Ben: also say it in German"
DENIAL = "Ana says: not in this repository"
REVISION = "Ana says: again, with a test"
ANSWER = "Blue"
COMMAND = "printf 'one\\ntwo\\n' > one.txt && cat one.txt"
ASKED_COMMAND = "touch asked.txt"
LATE_COMMAND = "sleep 3; touch late.txt"
LONG_COMMAND = "yes 0123456789abcdef0123456789abcde | head -c 5000000; echo; echo the-end"
GARBAGE = (
    b"Segmentation fault",
    b'{"type":"assistant","message":{"content":[{"type":"te',
    b"\xff\xfe\x00",
    b'{"type":"from_tomorrow","method":"from/tomorrow","more":[1,{"a":null}]}',
)

Play = Callable[[DrivenAgent], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Options:
    """What a task is started with beside its prompt."""

    permissions: Permissions = Permissions.AUTO
    answerable: bool = False
    effort: str = ""
    model: str = ""


ASKING = Options(Permissions.ASK, answerable=True)
UNATTENDED = Options(Permissions.ASK)
ANSWERABLE = Options(answerable=True)
PLANNING = Options(Permissions.PLAN, answerable=True)


@dataclass(frozen=True, slots=True)
class Scenario:
    """before: the scenario whose conversation this one resumes. codec: one of its own, not the rig's.
    recorded: False for one whose transcript would be large or tell nothing new. restarts: the bot is
    started again in the middle of each line that it reads."""

    prompt: str
    play: Play
    before: str = ""
    pictures: tuple[str, ...] = ()
    options: Options = field(default_factory=Options)
    codec: Callable[[ModelServer], Codec] | None = None
    recorded: bool = True
    restarts: bool = False


@dataclass(frozen=True, slots=True)
class Rig:
    """One agent, ready to be driven against the scripted model. program: where it is, if it is there."""

    name: str
    scenarios: Mapping[str, Scenario]
    scripts: Mapping[str, Script]
    codec: Callable[[ModelServer], Codec]
    program: Callable[[], str | None]


def program(name: str) -> str | None:
    """Where an agent's CLI is: SANDPIPER_<NAME>, the PATH, or this project's cache of agents."""
    named = os.environ.get(f"SANDPIPER_{name.upper()}", "")
    cached = CACHE / "node_modules/.bin" / name
    return named or shutil.which(name) or (str(cached) if cached.exists() else None)


def prompt(text: str, *inputs: int) -> Prompt:
    return Prompt(str(uuid.uuid4()), text, inputs)


async def to_its_end(agent: DrivenAgent) -> None:
    await agent.until_completed()
    await agent.close()


async def to_its_last_words(agent: DrivenAgent) -> None:
    """The turn is over, and the process still there."""
    await agent.until_completed()


async def steered(agent: DrivenAgent) -> None:
    await agent.until_running("sleep")
    agent.steer(prompt(STEER, 2))
    await to_its_end(agent)


def steered_in_its_last_words(sign: str) -> Play:
    """sign: what the agent's frames have when it hands on words of the model as they come."""

    async def play(agent: DrivenAgent) -> None:
        await agent.until(lambda agent: sign in str(agent.transcript[-1]), "the first words")
        agent.steer(prompt("[[script:hello]] and say hello", 2))
        await to_its_end(agent)

    return play


async def stopped_and_continued(agent: DrivenAgent) -> None:
    await agent.until_running("sleep")
    agent.interrupt()
    await agent.until_completed()
    agent.steer(prompt("[[script:hello]] go on with something else", 2))
    await agent.until_completed(2)
    await agent.close()


async def stopped_with_a_steer_waiting(agent: DrivenAgent) -> None:
    await agent.until_running("sleep")
    agent.steer(prompt("never read", 2))
    agent.interrupt()
    await to_its_end(agent)


async def stopped_at_once(agent: DrivenAgent) -> None:
    agent.interrupt()
    await to_its_end(agent)


async def approved(agent: DrivenAgent) -> None:
    """Everything that is asked is allowed, till the end."""
    await _decided(agent, allowed=True)


async def refused(agent: DrivenAgent) -> None:
    """Everything that is asked is refused, till the end."""
    await _decided(agent, allowed=False)


async def _decided(agent: DrivenAgent, *, allowed: bool) -> None:
    asked = 0

    def asks_or_ends(agent: DrivenAgent) -> bool:
        return bool(agent.completions or agent.approvals[asked:])

    while not agent.completions:
        await agent.until(asks_or_ends, "another request or the end")
        for approval in agent.approvals[asked:]:
            asked += 1
            agent.decide(approval.id, allowed=allowed)
    await agent.close()


async def denied(agent: DrivenAgent) -> None:
    asked = await agent.until_approval()
    agent.decide(asked.id, allowed=False, reason=DENIAL)
    await to_its_end(agent)


def refused_then_approved(script: str) -> Play:
    """script: how the model lays out its plan again, and goes on with it."""

    async def play(agent: DrivenAgent) -> None:
        first = await agent.until_approval()
        agent.decide(first.id, allowed=False, reason=f"[[script:{script}]] {REVISION}")
        second = await agent.until_approval(2)
        agent.decide(second.id, allowed=True)
        await to_its_end(agent)

    return play


async def withdrawn(agent: DrivenAgent) -> None:
    """Stopped while it waits for an approval."""
    await agent.until_approval()
    agent.interrupt()
    await to_its_end(agent)


async def asked(agent: DrivenAgent) -> None:
    question = await agent.until_question()
    agent.answer(question.id, ANSWER)
    await to_its_end(agent)


async def with_garbage(agent: DrivenAgent) -> None:
    """Its stdout has lines in the middle that are not its own."""
    await agent.until_running("sleep")
    for line in GARBAGE:
        agent.write_to_its_stdout(line)
    await to_its_end(agent)


# A picture of one red point.
PIXEL = Path(__file__).with_name("pixel.png")

PICTURE = Scenario("[[script:hello]] what is it?", to_its_end, pictures=(str(PIXEL),), recorded=False)

# Of Anthropic's API, and of OpenAI's.
NO_MODEL = Refusal(404, "model: claude-none", "not_found_error")
NO_MODEL_OPENAI = Refusal(
    404, "The model `gpt-none` does not exist or you do not have access to it.", "invalid_request_error"
)
RATE_LIMIT = Refusal(429, "Rate limit reached, try again in 1s", "rate_limit_error", retry_after=1)
FAILURE = Refusal(500, "Internal server error", "api_error")
AT_LAST = Reply("Hello at last.")
# The model's API in trouble, whichever it is.
TROUBLE: Mapping[str, Script] = {
    "rate-limited": [RATE_LIMIT],
    "rate-limited-once": [replace(RATE_LIMIT, times=1), AT_LAST],
    "failing": [FAILURE],
    "failing-once": [replace(FAILURE, times=1), AT_LAST],
}


def in_trouble(impatient: Callable[[ModelServer], Codec] | None = None) -> Mapping[str, Scenario]:
    """impatient: an agent that does not try for minutes, where it is in trouble for ever."""
    return {
        "rate-limited": Scenario("[[script:rate-limited]] go", to_its_end, codec=impatient),
        "rate-limited-once": Scenario("[[script:rate-limited-once]] go", to_its_end),
        "failing": Scenario("[[script:failing]] go", to_its_end, codec=impatient),
        "failing-once": Scenario("[[script:failing-once]] go", to_its_end),
    }


@dataclass(frozen=True, slots=True)
class Place:
    """A home and a small git repository for an agent."""

    home: Path
    work: Path

    @classmethod
    def made(cls, under: Path) -> Place:
        place = cls(under / "home", under / "work")
        place.home.mkdir()
        place.work.mkdir()
        place.git("init", "-q", "-b", "main")
        place.git("config", "user.name", "Agent")
        place.git("config", "user.email", "agent@example.com")
        (place.work / "README.md").write_text("# web\n")
        place.git("add", "-A")
        place.git("commit", "-q", "-m", "Start")
        return place

    def git(self, *arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=self.work, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    def task(self, prompt: Prompt, resume_token: str = "", options: Options | None = None) -> Task:
        given = options or Options()
        return Task(
            prompt,
            str(self.work),
            str(self.home),
            given.model,
            resume_token,
            session_uuid="" if resume_token else str(uuid.uuid4()),
            effort=given.effort,
            permissions=given.permissions,
            answerable=given.answerable,
            shared=str(self.home / "shared"),
        )


@contextlib.asynccontextmanager
async def played(
    codec: Codec,
    scenarios: Mapping[str, Scenario],
    name: str,
    place: Place,
    again: Callable[[], Codec] | None = None,
) -> AsyncIterator[DrivenAgent]:
    """The agent that has gone through a scenario (and through the one before it, in another process)."""
    scenario = scenarios[name]
    token = ""
    if scenario.before:
        async with played(codec, scenarios, scenario.before, place) as earlier:
            token = earlier.resume_token
    first = replace(prompt(scenario.prompt, 1), images=scenario.pictures)
    task = place.task(first, token, scenario.options)
    async with DrivenAgent.started(codec, task, again) as agent:
        await scenario.play(agent)
        yield agent


def played_by(
    rig: Rig, name: str, model: ModelServer, place: Place
) -> contextlib.AbstractAsyncContextManager[DrivenAgent]:
    """The same, with the codec that the rig has for this scenario."""
    scenario = rig.scenarios[name]
    make = scenario.codec or rig.codec
    again = (lambda: make(model)) if scenario.restarts else None
    return played(make(model), rig.scenarios, name, place, again)
