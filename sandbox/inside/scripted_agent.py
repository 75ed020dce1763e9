"""A small coding agent without a model, for the demo and the tests. Standard library only, Python 3.9+.

It reads its prompt, really edits, tests and commits in the current directory, listens to what people say
meanwhile, and keeps its conversation in $HOME/.scripted_agent/<session>.json, so that it can be resumed.

JSON lines in:   {"type": "prompt", "key": …, "text": …} · {"type": "interrupt"} ·
                 {"type": "reply", "id": …, "allowed": …, "text": …}
JSON lines out:  ready(session, resumed) · consumed(key) · dropped(key) · text(text) · thought(text) ·
                 plan(entries) · tool(id, kind, title, status, subject, result) · usage(made, given) ·
                 question(id, text, options) · approval(id, title, detail, kind) · withdrawn(id) ·
                 done(reason, text, error)
A prompt during a turn steers it; it is taken in between two tools. End of input ends the program.

A prompt with lines like these is followed to the letter (what <thread>, <background> and <history> hold is
not):
  !say T · !think T · !answer T · !plan a; b · !read P · !write P T · !leave P T · !run C · !commit M
  !sleep N · !wait (for the next message) · !big 5MB · !garbage · !stderr T · !fail T · !exit N · !crash
  !ask Which colour? | Red | Blue · !may C (run it when people allow it) · !tool NAME {JSON} (a side tool)
  !hang · !ignore-interrupt · !stubborn (commits nothing that is left over)
Any other prompt is answered as a small engineer would: read, change, test, commit (see Engineer).

SCRIPTED_AGENT_PACE scales the pauses of the engineer: 1.0 for people, 0 for tests.
SCRIPTED_AGENT_TOOLS: the program that serves the side tools by MCP, if there are any.
SCRIPTED_AGENT_PERMISSIONS: "ask" asks people before a command is run, "plan" before a plan is carried out.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

VERSION = "1"
COMMAND = re.compile(r"^(?:[^\n:!]{1,80}: )?!([a-z-]+)(?: (.*))?$")
FENCED = re.compile(
    r"^<(thread|background|history)>$.*?^</\1>$", re.DOTALL | re.MULTILINE
)  # on lines of their own
RULES = ("You are working for", "You were interrupted", "Note:", "Work has been done here before")
SIZES = {"KB": 1000, "MB": 1000 * 1000}


class Interrupted(Exception):
    """Somebody said stop."""


# The wire


class Wire:
    """Lines in by a thread of their own, lines out at once. Stops are counted, so that one that was
    written behind a prompt is not lost while the prompt still waits."""

    def __init__(self) -> None:
        self.stops = 0
        self.replies: dict[str, dict[str, Any]] = {}
        self.queue: queue.Queue[dict[str, Any] | None] = queue.Queue()
        signal.signal(signal.SIGINT, lambda *_: self._stop())
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        for line in sys.stdin:
            try:
                told = json.loads(line)
                if told["type"] == "interrupt":
                    self._stop()
                elif told["type"] == "reply":
                    self.replies[str(told["id"])] = told
                else:
                    self.queue.put({"key": str(told["key"]), "text": str(told["text"]), "stops": self.stops})
            except (ValueError, KeyError, TypeError):
                self.say("error", text="I did not understand: " + line.strip()[:200])
        self.queue.put(None)

    def _stop(self) -> None:
        self.stops += 1
        self.queue.put({"stop": self.stops})

    def say(self, kind: str, /, **fields: Any) -> None:
        sys.stdout.write(json.dumps({"type": kind, **fields}) + "\n")
        sys.stdout.flush()

    def waiting(self) -> list[dict[str, Any]]:
        """The prompts that have come in; nothing of it waits."""
        found: list[dict[str, Any]] = []
        while True:
            try:
                item = self.queue.get_nowait()
            except queue.Empty:
                return found
            if item is None:
                self.queue.put(None)
                return found
            if "key" in item:
                found.append(item)


# The conversation


class Agent:
    """memory is what the conversation leaves behind, on disk before anything is said to be taken in.
    asked: the prompt under way. todo: its script. work: [base, context, said] of the engineer.
    heard: steers that were not acted on yet. said: what people wanted in earlier turns."""

    def __init__(self, wire: Wire, session: str, resume: bool, pace: float) -> None:
        self.wire = wire
        self.pace = pace
        self.file = Path.home() / ".scripted_agent" / (session + ".json")
        self.memory: dict[str, Any] = {"turns": 0, "last": "", "asked": "", "said": []}
        self.memory.update(todo=[], work=[], heard=[])
        if resume:
            self.memory.update(json.loads(self.file.read_text()))
        self.calls = 0
        self.allowed_stops = 0
        self.deaf = False
        self.permissions = os.environ.get("SCRIPTED_AGENT_PERMISSIONS", "auto")
        wire.say("ready", session=session, resumed=resume, version=VERSION)

    def remember(self) -> None:
        self.file.parent.mkdir(parents=True, exist_ok=True)
        fresh = self.file.with_suffix(".new")
        fresh.write_text(json.dumps(self.memory))
        fresh.replace(self.file)

    def talk(self) -> None:
        """Prompt after prompt, to the end of input."""
        while True:
            item = self.wire.queue.get()
            if item is None:
                return
            if "key" in item:
                self.allowed_stops = item["stops"]
                self.answer(item)
            elif item["stop"] > self.allowed_stops:  # stopped while nothing was done
                self.end("cancelled")

    def answer(self, prompt: dict[str, Any]) -> None:
        self.memory["turns"] += 1
        self.calls = self.memory["turns"] * 1000
        text = str(prompt["text"])
        if "were interrupted" in text:
            self.memory["todo"] += commands(text)
            self.memory["asked"] += "\n\n" + text
        else:
            self.memory.update(asked=text, todo=commands(text), work=[], heard=[])
        self.remember()
        self.wire.say("consumed", key=prompt["key"])
        try:
            said = self.turn(text)
            made = 40 * (self.calls % 1000) + len(said) // 4
            self.wire.say("usage", given=400 + len(text) // 4, made=made)
            self.end("end", said)
        except Interrupted:
            self.memory.update(todo=[], work=[], heard=[])
            for waiting in self.wire.waiting():
                self.wire.say("dropped", key=waiting["key"])
            self.end("cancelled")
        except Failed as failure:
            self.end("error", error=str(failure))

    def end(self, reason: str, text: str = "", error: str = "") -> None:
        self.allowed_stops = self.wire.stops
        self.memory.update(asked="", last=text or self.memory["last"])
        self.remember()
        self.wire.say("done", reason=reason, text=text, error=error)

    def turn(self, text: str) -> str:
        asked = self.memory["asked"]
        if "not committed" in asked and re.search(r"\bcommit\b", asked, re.IGNORECASE):
            if not self.memory.get("stubborn"):
                self.commit("Commit what was left over")
            return str(self.memory["last"]) or "Committed what was left over."
        return Script(self).follow() if commands(asked) else Engineer(self).work(asked, text)

    def listen(self) -> None:
        """Take in what people wrote meanwhile. Raises Interrupted when they said stop."""
        for prompt in self.wire.waiting():
            self.memory["heard"].append(prompt["text"])
            self.remember()
            self.wire.say("consumed", key=prompt["key"])
        if self.stopped():
            raise Interrupted

    def stopped(self) -> bool:
        return self.wire.stops > self.allowed_stops and not self.deaf

    # tools

    def pause(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while not self.stopped():
            left = end - time.monotonic()
            if left <= 0:
                return
            time.sleep(min(left, 0.05))
        raise Interrupted

    def tool(
        self, kind: str, doing: str, done: str, act: Callable[[], str], subject: str = "", slow: float = 0.6
    ) -> str:
        """Show a call, wait as people expect it to take, and do it."""
        self.calls += 1
        call = {"id": f"tool-{self.calls}", "kind": kind, "subject": subject}
        self.wire.say("tool", title=doing, status="in_progress", result="", **call)
        try:
            self.pause(slow * self.pace)
            result = act()
        except Interrupted:
            self.wire.say("tool", title=done, status="failed", result="interrupted", **call)
            raise
        except (Failed, OSError) as failure:
            self.wire.say("tool", title=done, status="failed", result=str(failure), **call)
            return str(failure)
        self.wire.say("tool", title=done, status="completed", result=result, **call)
        return result

    def hear_of(self, what: str, **asked: Any) -> dict[str, Any]:
        """Ask people, and wait for what they say."""
        self.calls += 1
        id = f"ask-{self.calls}"
        self.wire.say(what, id=id, **asked)
        try:
            while id not in self.wire.replies:
                self.pause(0.02)
        except Interrupted:
            self.wire.say("withdrawn", id=id)
            raise
        return self.wire.replies.pop(id)

    def may(self, kind: str, title: str, detail: str) -> str:
        """ "" when people allow it, else why not."""
        reply = self.hear_of("approval", title=title, detail=detail, kind=kind)
        return "" if reply.get("allowed") else str(reply.get("text") or "not allowed")

    def run(self, command: str, slow: float = 1.0, ask: bool = False) -> str:
        if ask or self.permissions == "ask":
            refused = self.may("execute", "Run " + command.split()[0], command)
            if refused:
                self.wire.say("text", text=f"I did not run `{command}`: {refused}")
                return refused
        return self.tool(
            "execute", "Running " + command, "Ran " + command, lambda: self.shell(command), command, slow
        )

    def shell(self, command: str) -> str:
        """A command's output. Raises Failed with it when the command failed."""
        env = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
        with subprocess.Popen(
            ["/bin/sh", "-c", command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=env,
            start_new_session=True,
        ) as process:
            while True:
                try:
                    output = process.communicate(timeout=0.1)[0].decode(errors="replace")
                    break
                except subprocess.TimeoutExpired:
                    if self.stopped():
                        os.killpg(process.pid, signal.SIGKILL)
                        raise Interrupted from None
        if process.returncode:
            raise Failed(f"{output}\nexit code {process.returncode}".strip())
        return output.strip()

    def write(self, path: str, text: str) -> None:
        def act() -> str:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            before = Path(path).read_text().splitlines() if Path(path).exists() else []
            Path(path).write_text(text)
            after = text.splitlines()
            added = [line for line in after if line not in before]
            removed = [line for line in before if line not in after]
            return f"+{len(added)} −{len(removed)}"

        verb = ("Editing ", "Edited ") if Path(path).exists() else ("Writing ", "Wrote ")
        self.tool("edit", verb[0] + path, verb[1] + path, act, path, slow=1.6)

    def read(self, path: str) -> None:
        self.tool(
            "read",
            "Reading " + path,
            "Read " + path,
            lambda: count(len(Path(path).read_text().splitlines()), "line"),
            path,
        )

    def commit(self, message: str) -> None:
        staged = "git add -A && (git diff --cached --quiet || "
        command = f"{staged}git commit -q -m {shlex.quote(message)})"
        self.tool("execute", "Committing", f"Committed “{message}”", lambda: self.shell(command), command)


class Failed(Exception):
    """A command failed, or the prompt says that the agent should."""


def count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def commands(text: str) -> list[list[str]]:
    found = [COMMAND.match(line.strip()) for line in FENCED.sub("", text).splitlines()]
    return [[match[1], match[2] or ""] for match in found if match]


# Scripts


class Script:
    """Follows the lines of a prompt. What is left to do is remembered before each one, so that an agent
    that crashed goes on behind the line that it crashed at."""

    def __init__(self, agent: Agent) -> None:
        self.agent = agent
        self.answer = ""

    def follow(self) -> str:
        self.hear()
        todo = self.agent.memory["todo"]
        while todo:
            name, rest = todo.pop(0)
            self.agent.remember()
            act = getattr(self, "do_" + name.replace("-", "_"), None)
            if act is None:
                raise Failed(f"There is no !{name}.")
            act(rest)
            self.hear()
        return self.answer or "Done."

    def hear(self) -> bool:
        self.agent.listen()
        heard = self.agent.memory["heard"]
        for text in heard:
            more = commands(text)
            self.agent.memory["todo"] += more
            if not more:
                self.agent.wire.say("text", text="Understood: " + text.strip())
                self.answer = (self.answer + "\nI was told: " + text.strip()).strip()
        self.agent.memory["heard"] = []
        self.agent.remember()
        return bool(heard)

    def do_say(self, rest: str) -> None:
        self.agent.wire.say("text", text=rest)

    def do_think(self, rest: str) -> None:
        self.agent.wire.say("thought", text=rest)

    def do_answer(self, rest: str) -> None:
        self.answer = rest

    def do_plan(self, rest: str) -> None:
        entries = [{"text": item.strip(), "status": "pending"} for item in rest.split(";")]
        self.agent.wire.say("plan", entries=entries)

    def do_read(self, rest: str) -> None:
        self.agent.read(rest)

    def do_write(self, rest: str) -> None:
        path, _, text = rest.partition(" ")
        self.agent.write(path, text.replace("\\n", "\n") + "\n")

    do_leave = do_write

    def do_run(self, rest: str) -> None:
        self.agent.run(rest)

    def do_ask(self, rest: str) -> None:
        text, *options = [part.strip() for part in rest.split("|")]
        reply = self.agent.hear_of("question", text=text, options=options)
        told = reply.get("text") or reply.get("reason") or "nothing"
        self.answer = f"{self.answer}\nI asked “{text}” and was told: {told}".strip()

    def do_may(self, rest: str) -> None:
        result = self.agent.run(rest, ask=True)
        self.answer = f"{self.answer}\n{rest}: {result}".strip()

    def do_tool(self, rest: str) -> None:
        name, _, arguments = rest.partition(" ")
        program = Path(__file__).with_name("mcp_call.py")
        server = os.environ.get("SCRIPTED_AGENT_TOOLS") or "/bin/false"
        command = shlex.join([sys.executable, str(program), name, arguments or "{}", "/bin/sh", server])
        label = f"sandpiper: {name}"
        result = self.agent.tool(
            "other", f"Using {label}", f"Used {label}", lambda: self.agent.shell(command)
        )
        self.answer = f"{self.answer}\n{name}: {result}".strip()

    def do_commit(self, rest: str) -> None:
        self.agent.commit(rest or "Change what was asked for")

    def do_sleep(self, rest: str) -> None:
        def act() -> str:
            self.agent.pause(float(rest))
            return ""

        self.agent.tool("other", f"Sleeping {rest} s", f"Slept {rest} s", act)

    def do_wait(self, rest: str) -> None:
        def act() -> str:
            while not self.hear():
                self.agent.pause(0.02)
            return ""

        self.agent.tool("other", "Waiting for a message", "Waited for a message", act)

    def do_big(self, rest: str) -> None:
        size = re.fullmatch(r"(\d+)(KB|MB)?", rest)
        count = int(size[1]) * SIZES.get(size[2] or "", 1) if size else 0
        self.agent.tool("execute", "Writing a lot", "Wrote a lot", lambda: "x" * count)

    def do_garbage(self, rest: str) -> None:
        lines = [
            b"not json",
            b'{"type": "tool", "id": ',
            b"[1, 2]",
            b'{"type": "from-the-future"}',
            b"\xff\xfe\x00",
            b"",
        ]
        sys.stdout.buffer.write(b"\n".join(lines) + b"\n")
        sys.stdout.flush()

    def do_stderr(self, rest: str) -> None:
        sys.stderr.write(rest + "\n")
        sys.stderr.flush()

    def do_fail(self, rest: str) -> NoReturn:
        self.agent.memory["todo"].clear()
        raise Failed(rest or "It failed.")

    def do_exit(self, rest: str) -> NoReturn:
        os._exit(int(rest or 0))

    def do_crash(self, rest: str) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def do_hang(self, rest: str) -> None:
        while True:
            self.agent.pause(3600)

    def do_ignore_interrupt(self, rest: str) -> None:
        self.agent.deaf = True

    def do_stubborn(self, rest: str) -> None:
        self.agent.memory["stubborn"] = True


# The engineer


class Engineer:
    """Reads, makes the change that scripted_change.py (beside this file) thinks of for what was said,
    tests it and commits it. What is said meanwhile changes the change."""

    def __init__(self, agent: Agent) -> None:
        self.agent = agent
        self.base = agent.shell("git rev-parse HEAD")
        self.context = ""
        self.earlier: list[list[str]] = agent.memory["said"]
        self.said: list[list[str]] = []
        self.followed: list[str] = []
        self.tests = ""

    def work(self, asked: str, text: str) -> str:
        """asked: the whole request. text: the newest part of it, when it was interrupted."""
        if self.agent.memory["work"]:
            self.base, self.context, self.said = self.agent.memory["work"]
        new = text if self.said else asked
        self.context += " ".join(match[0] for match in FENCED.finditer(new))
        self.said += spoken(new)
        if not self.said:
            return "I was not asked for anything."
        self.hear()
        self.agent.wire.say("thought", text="I am asked: " + " ".join(words for _, words in self.said))
        self.plan(0)
        idea = self.think()
        self.look(idea)
        if idea["answer"]:
            return str(idea["answer"])
        made: dict[str, Any] = {}
        while idea != made:
            made = idea
            self.agent.wire.say("text", text=f"I will do this: {idea['subject']}.")
            if self.agent.permissions == "plan":
                files = "\n".join(f"- {path}" for path in idea["files"])
                refused = self.agent.may("other", idea["subject"], f"{idea['subject']}, in:\n{files}")
                if refused:
                    return f"I changed nothing: {refused}"
            self.plan(1)
            for path, content in idea["files"].items():
                if not Path(path).exists() or Path(path).read_text() != content:
                    self.agent.write(path, content)
                    self.hear()
            idea = self.think()
            if idea == made:
                self.plan(2)
                self.tests = self.test()
                self.hear()
                idea = self.think()
            if idea == made:
                self.plan(3)
                self.agent.commit(idea["subject"])
                self.hear()
                idea = self.think()
        self.plan(4)
        self.agent.memory["said"] = [*self.earlier, *self.said][-20:]
        self.agent.memory["work"] = []
        return self.summary(idea)

    def think(self) -> dict[str, Any]:
        program = str(Path(__file__).with_name("scripted_change.py"))
        told = {"said": self.said, "earlier": self.earlier, "context": self.context, "base": self.base}
        thinking = subprocess.run(
            [sys.executable, program], input=json.dumps(told), capture_output=True, text=True
        )
        if thinking.returncode:
            raise Failed("I cannot think: " + thinking.stderr[-2000:])
        idea: dict[str, Any] = json.loads(thinking.stdout)
        return idea

    def plan(self, at: int) -> None:
        steps = ["Read the code", "Make the change", "Run the tests", "Commit"]
        states = ["completed"] * at + ["in_progress"] + ["pending"] * 4
        entries = [{"text": text, "status": states[index]} for index, text in enumerate(steps)]
        self.agent.wire.say("plan", entries=entries)

    def look(self, idea: dict[str, Any]) -> None:
        pattern = idea["search"]
        search = f"git grep -n -i -E {shlex.quote(pattern)} | head -8"
        self.agent.tool(
            "search",
            "Searching for " + pattern,
            "Searched for " + pattern,
            lambda: self.agent.shell(search),
            pattern,
        )
        for path in idea["read"]:
            self.hear()
            self.agent.read(path)
        self.hear()

    def hear(self) -> None:
        self.agent.listen()
        for text in self.agent.memory["heard"]:
            for who, words in spoken(text):
                self.said.append([who, words])
                self.followed.append(words)
                self.agent.wire.say("text", text=f"{who or 'Heard'}: “{words}” – I take that in.")
        self.agent.memory.update(heard=[], work=[self.base, self.context, self.said])
        self.agent.remember()

    def test(self) -> str:
        names = self.agent.shell("git ls-files --cached --others --exclude-standard").splitlines()
        tests = [
            Path(name).read_text()
            for name in names
            if re.search(r"test[^/]*\.py$", name) and Path(name).exists()
        ]
        if not tests:
            return ""
        pytest = not any("unittest" in text for text in tests)
        return self.agent.run("python3 -m pytest -q -p no:cacheprovider" if pytest else "python3 -m unittest")

    def summary(self, idea: dict[str, Any]) -> str:
        lines = [idea["subject"] + ".", "", *("- " + point for point in idea["points"])]
        lines += [f"- On the way I was told: “{words}”" for words in self.followed]
        if self.tests:
            told = [
                line for line in self.tests.splitlines() if re.search(r"^Ran |^OK|FAILED|passed|failed", line)
            ]
            lines.append("- Tests: " + ", ".join(told[-2:] or ["see above"]))
        return "\n".join(lines)


def spoken(text: str) -> list[list[str]]:
    """Who said what, without the house rules and what others wrote: "Ana: please …"."""
    said: list[list[str]] = []
    for paragraph in re.split(r"\n\s*\n", FENCED.sub("", text)):
        words = " ".join(paragraph.split())
        if not words or words.startswith(RULES):
            continue
        name = re.match(r"([\w][\w .'-]{0,40}): (.+)", words)
        if name:
            said.append([name[1], name[2]])
        elif said:
            said[-1][1] += " " + words
        else:
            said.append(["", words])
    return said


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--session", default=str(uuid.uuid4()))
    parser.add_argument("--resume", action="store_true")
    arguments = parser.parse_args()
    pace = float(os.environ.get("SCRIPTED_AGENT_PACE", "1"))
    try:
        agent = Agent(Wire(), arguments.session, arguments.resume, pace)
    except FileNotFoundError:
        sys.exit(f"There is no conversation {arguments.session} here.")
    try:
        agent.talk()
    except BrokenPipeError:
        os._exit(1)  # nobody listens any more


if __name__ == "__main__":
    main()
