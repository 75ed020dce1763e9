"""What people's words ask of us, the same on all surfaces: a verb, a mode, options, or just a prompt."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from bot.models import Mode, Verb

ERROR = "error"  # the option under which a mistake in the other options is explained to its author

MOST_REPOSITORIES = 8  # of one session

_PREFIX = re.compile(r"(queue|interrupt):\s*(?:(?:queue|interrupt):\s*)*", re.IGNORECASE)
# What is quoted is somebody else's, and what is code is meant for the agent.
_COVERED = re.compile(r"```.*?(?:```|\Z)|`[^`\n]+`|^[ \t]{0,3}>[^\n]*", re.DOTALL | re.MULTILINE)
_OPTION = re.compile(r"(?<!\S)(repo|agent|model|effort|permissions)=(\S*)[ \t]*", re.IGNORECASE)
_REPOSITORY = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,38}/(?!\.{1,2}\Z)[A-Za-z0-9._-]{1,100}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@\[\]-]{0,99}")
_NUMBER = re.compile(r"#?\d{1,18}")
_PORT = re.compile(r"[1-9][0-9]{0,4}")
_WORDS = [verb for verb in Verb if verb not in (Verb.ANSWER, Verb.SANDBOX, Verb.GET, Verb.PREVIEW)]
# "Get the tests green" is a task, "get docs/report.html" names a file. Slack makes a link of "notes.md".
_GET = re.compile(r"get\s+(?:`([^`\n]{1,4000})`|(?:https?://)?((?=\S*[./]\S)[^\s`]{1,4000}))", re.IGNORECASE)
_OF_A_SANDBOX = ("status", "restart", "pin", "unpin", "reset")
_PUNCTUATION = ".,;:!?"

# "Stop it now, please" is a command; "stop using tabs in foo.py" steers the agent. So a verb stands
# alone, but for these.
_FILLERS = frozenset({"please", "now", "it"})


@dataclass(frozen=True, slots=True)
class Words:
    """A person's words, understood. A verb takes all of them, so `text` is "" beside it.

    options: repo, agent, model, effort and permissions as given; ERROR says which can't be used, and why.
    """

    verb: Verb | None = None
    mode: Mode = Mode.STEER
    options: Mapping[str, str] = field(default_factory=dict)
    text: str = ""


def parse_words(said: str) -> Words:
    """Understand what somebody said to us, the mention already removed. Never raises.

    A verb stands alone: `stop`, `status`, `publish`, `help`, `channel`, which also takes a repository
    (`channel owner/name`), `approve` and `deny`, which take a number (`approve 12`), `sandbox` with what
    about it (`sandbox restart`), `get` with a file (`get docs/report.html`), `preview` with a port
    (`preview 3000`), and the number of a reset (`reset 12`). `queue: …` and `interrupt: …` set the mode of a
    prompt. `repo=owner/name` (several with commas between them), `agent=name`, `model=name`, `effort=word`
    and `permissions=word` may stand anywhere but in quotes and code; other keys are text.
    """
    text = said.strip()
    mode = Mode.STEER
    options: dict[str, str] = {}
    while True:
        before = text
        if prefix := _PREFIX.match(text):
            mode = mode if mode is not Mode.STEER else Mode(prefix[1].lower())
            text = text[prefix.end() :]
        text = _take_options(text, options).strip()
        if text == before:
            break
    verb = _verb(text, options)
    return Words(verb, mode, options, "" if verb else text)


def _take_options(text: str, options: dict[str, str]) -> str:
    """The text without its options, which are put into `options`. Quotes and code are left as they are."""
    kept: list[str] = []
    position = 0
    for covered in _COVERED.finditer(text):
        before = text[position : covered.start()]
        kept += [_OPTION.sub(lambda found: _take(found, options), before), covered[0]]
        position = covered.end()
    kept.append(_OPTION.sub(lambda found: _take(found, options), text[position:]))
    return "".join(kept)


def _take(found: re.Match[str], options: dict[str, str]) -> str:
    key = found[1].lower()
    value = found[2].strip(_PUNCTUATION + "\"'")
    if key == "repo" and not all(_REPOSITORY.fullmatch(name) for name in value.split(",")):
        mistake = f"`repo={_shown(value)}` is not a repository. Write it as `repo=owner/name`."
    elif key == "repo" and value.count(",") >= MOST_REPOSITORIES:
        mistake = f"`repo=` names more than {MOST_REPOSITORIES} repositories. Start a thread for the others."
    elif key != "repo" and not _NAME.fullmatch(value):
        mistake = f"`{key}={_shown(value)}` is not a name. Write it as `{key}=name`, without spaces."
    elif options.get(key, value) != value:
        mistake = f"`{key}=` is given twice, with different values. Give it once."
    else:
        options[key] = value
        return ""
    options.setdefault(ERROR, mistake)
    return ""


def _verb(text: str, options: dict[str, str]) -> Verb | None:
    words = [bare for word in text.lower().split() if (bare := word.strip(_PUNCTUATION))]
    if words[:1] == [Verb.CHANNEL] and len(words) == 2 and _REPOSITORY.fullmatch(words[1]):
        options.setdefault("repo", text.split()[1].strip(_PUNCTUATION))
        return Verb.CHANNEL
    if words[:1] in ([Verb.APPROVE], [Verb.DENY]) and len(words) == 2 and _NUMBER.fullmatch(words[1]):
        options["ask"] = words[1].removeprefix("#")
        return Verb(words[0])
    if got := _GET.fullmatch(text.strip()):
        options["path"] = got[1] or got[2]
        return Verb.GET
    told = [word for word in words if word not in _FILLERS]
    if told[:1] == [Verb.PREVIEW] and len(told) == 2 and _PORT.fullmatch(told[1]) and int(told[1]) < 65536:
        options["port"] = told[1]
        return Verb.PREVIEW
    if told[:1] == [Verb.SANDBOX] and len(told) <= 2 and (told[1:] or ["status"])[0] in _OF_A_SANDBOX:
        options["do"] = (told[1:] or ["status"])[0]
        return Verb.SANDBOX
    reset = told[1:] if told[:1] == [Verb.SANDBOX] else told
    if reset[:1] == ["reset"] and len(reset) == 2 and _NUMBER.fullmatch(reset[1]):
        options |= {"do": "reset", "number": reset[1].removeprefix("#")}
        return Verb.SANDBOX
    return Verb(told[0]) if len(told) == 1 and told[0] in _WORDS else None


def _shown(value: str) -> str:
    return value.replace("`", "'")[:60]
