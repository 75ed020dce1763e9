"""Agents' programs in a sandbox: installed at pinned versions, and looked at before each start.

A version has a directory of its own, so another pin is put beside the one that runs, never over it. What is
called is a path, so an older program of the same name earlier on PATH is not. Programs that are ours to
install lie where no turn can change them, where the provider can do so, and nothing in the home has a say in
how they are installed, found and started.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from bot.agents.loopback import loopback_ports
from bot.errors import AgentMissing, SandpiperError
from bot.models import Launch
from bot.ports import Provider, Sandbox
from bot.trust import NO_TRUST, Trust

INSTALL_SECONDS = 480.0  # below the usual deadline of a preparation, so that what is slow is named
LOOK_SECONDS = 60.0
WRONG_VERSION = 64
FOR_INSTALLING = {"purpose": "installing agents"}  # labels: no person has such a sandbox

log = logging.getLogger(__name__)

# $1 the directory of installed agents, $2 the program, $3 the pinned version or "". Prints the path, that of
# the interpreter where the program's first line has it looked for on PATH, a line that changes when the
# program does, and what it calls itself. $4: such a line of an earlier look.
_LOOK = r"""
stamped() { stat -c '%n %s %i %y %z' -- "$(readlink -f -- "$1")"; }
fits() {
    test -z "$2" && return
    case " $1 " in
        *[!0-9A-Za-z.]"$2"[!0-9A-Za-z.+-]* | *[!0-9A-Za-z.]v"$2"[!0-9A-Za-z.+-]*) ;;
        *) return 1 ;;
    esac
}
says() { "$1" --version 2>&1 </dev/null | tail -n 3; }
own="$1/node_modules/.bin"
# The system's own comes first, where it is the right one: there no turn can have changed it.
found=$(command -v -- "$2") || found=
if test -x "$own/$2"; then
    if test -z "$found"; then found=$own/$2
    elif test "$(stamped "$found")" != "$4" && ! fits "$(says "$found")" "$3"; then found=$own/$2; fi
fi
test -n "$found" || exit 127
test "$found" != "$own/$2" || PATH="$own:$PATH"
echo "$found"
first=$(head -c 200 -- "$found" | tr -d '\000' | head -n 1)
words=${first#"#!/usr/bin/env "}
test "$words" != "$first" || words=
words=${words#-S }
case $words in *[!A-Za-z0-9_.=\ -]*) words= ;; esac
named=$(command -v -- "${words%% *}") && echo "$named${words#"${words%% *}"}" || echo
stamp=$(stamped "$found")
echo "$stamp"
test "$stamp" = "$4" && exit 0
told=$(says "$found")
printf '%s\n' "$told"
fits "$told" "$3" || exit 64
"""

# $1 the directory, then the packages. Made aside, and the directory is a link to it that is changed in one
# step: half an installation is none, and what runs keeps its files. Those go when they are a month old. Who
# reads it may be another user than who installs.
_INSTALL = r"""
set -e
command -v npm >/dev/null || { echo "npm is not in the sandbox" >&2; exit 127; }
goal=$1; shift
mkdir -p "$(dirname "$goal")"
made=$(mktemp -d "$goal.XXXXXX")
trap 'rm -rf "$made"' EXIT
export npm_config_cache="$made/.cache"
npm install --prefix "$made" --no-audit --no-fund --no-update-notifier --loglevel=error "$@" >&2
rm -rf "$npm_config_cache"
chmod -R a+rX "$made"
test -L "$goal" || ! test -e "$goal" || mv -T "$goal" "$made.before"
ln -s "$(basename "$made")" "$made.link"
mv -T "$made.link" "$goal"
trap - EXIT
for old in "$goal".*; do
    test "$old" = "$made" || find "$old" -maxdepth 0 -mtime +30 -exec rm -rf {} +
done
"""


# $1 the directory of installed agents, then the command line. What comes with an agent (a newer Node.js)
# is found by it, and by nobody else.
_CALL = 'PATH="$1/node_modules/.bin:$PATH"; shift; exec "$@"'


@dataclass(frozen=True, slots=True)
class Program:
    """command: what is called, and its first arguments. version: the pin; "" takes what is there, whatever
    its version. packages: what npm is to install where it is not there or has another version, each with
    its own version ("@acme/agent@1.2.0"); none: it is not ours to install. registry: another npm registry's
    URL. setting: the variable that says all this."""

    command: tuple[str, ...]
    version: str = ""
    packages: tuple[str, ...] = ()
    registry: str = ""
    setting: str = "SANDPIPER_AGENTS"


@dataclass(slots=True)
class Programs:
    """By agent. Agents that are not among them are called as their codec says."""

    known: Mapping[str, Program]
    trust: Trust = NO_TRUST
    _seen: dict[tuple[str, str], str] = field(default_factory=dict)
    _locks: dict[tuple[str, str], asyncio.Lock] = field(default_factory=dict)

    async def ready(
        self, sandbox: Sandbox, agent: str, installing: Callable[[str], Awaitable[None]]
    ) -> tuple[str, ...]:
        """The agent's command line in this sandbox, installed where it was not; () = the codec's own.
        installing: is told what, before that is begun.

        Raises AgentMissing: it is not there and cannot be installed, or has another version.
        """
        program = self.known.get(agent)
        if program is None:
            return ()
        key = (sandbox.id, agent)
        async with self._locks.setdefault(key, asyncio.Lock()):
            found = await self._look(key, sandbox, agent, program)
            if found is None:
                named = program.packages[0]
                await installing(named)
                await _install(sandbox, agent, program, self.trust)
                found = await self._look(key, sandbox, agent, program)
                if found is None:
                    raise AgentMissing(
                        f"{named} was installed, but has no program {program.command[0]!r} of that version."
                    )
        where = _directory(sandbox, agent, program)
        if not found[-1].startswith(f"{where}/"):
            return (*found, *program.command[1:])
        return ("/bin/sh", "-c", _CALL, agent, where, *found, *program.command[1:])

    async def ahead(self, provider: Provider, agent: str) -> None:
        """Have an agent's program there before the first turn wants it, where all sandboxes share them. What
        fails is told in the log, and tried again by that turn."""
        if agent not in self.known or not provider.shares_agents:
            return

        async def installing(named: str) -> None:
            log.info("installing %s", named)

        try:
            for left_over in await provider.find(FOR_INSTALLING):  # of a life that ended half way
                await left_over.delete()
            sandbox = await provider.create(FOR_INSTALLING)
            try:
                await sandbox.enter()
                await self.ready(sandbox, agent, installing)
            finally:
                await sandbox.delete()
        except SandpiperError as error:
            log.warning("the agent '%s' is not there yet: %s", agent, error)
        except Exception:  # nobody waits for it, so it must not take the bot down
            log.exception("the agent '%s' could not be installed ahead", agent)

    async def _look(
        self, key: tuple[str, str], sandbox: Sandbox, agent: str, program: Program
    ) -> tuple[str, ...] | None:
        """How the program is called, without its arguments; None: it has to be installed."""
        where, seen = _directory(sandbox, agent, program), self._seen.get(key, "")
        arguments = (where, program.command[0], program.version, seen)
        # What is not ours to install may be in the home.
        ours = bool(program.packages)
        launch = Launch(("/bin/sh", "-c", _LOOK, "look", *arguments), sandbox.home, installs=ours)
        done = await sandbox.run(self.trust.into(sandbox, launch), timeout=LOOK_SECONDS)
        path, interpreter, stamp, told = _lines(done.out.decode(errors="replace"))
        if done.code == 0:
            self._seen[key] = stamp
            return (*interpreter.split(), path)
        if program.packages:
            return None
        if done.code == WRONG_VERSION:
            found = re.sub(r"\s+", " ", told).strip()[:100] or "nothing"
            raise AgentMissing(
                f"The agent '{agent}' is to be version {program.version}, but {path} says: {found}.",
                f"Install that version in the sandbox, or change its `version` in {program.setting}.",
            )
        raise AgentMissing(
            f"The agent '{agent}' is not installed in the sandbox: no {program.command[0]!r} is there.",
            f"Install it there, or name its path or its npm packages with {program.setting}.",
        )


def _lines(said: str) -> list[str]:
    """Of a look: three lines, and what is left."""
    lines = said.split("\n", 3)
    return [*lines, *[""] * (4 - len(lines))]


async def _install(sandbox: Sandbox, agent: str, program: Program, trust: Trust) -> None:
    where = _directory(sandbox, agent, program)
    env = {"npm_config_registry": program.registry} if program.registry else {}
    launch = Launch(
        ("/bin/sh", "-c", _INSTALL, "install", where, *program.packages),
        sandbox.home,
        env,
        loopback=loopback_ports(program.registry),
        installs=True,
    )
    done = await sandbox.run(trust.into(sandbox, launch), timeout=INSTALL_SECONDS)
    if done.code:
        last = " ".join(done.err.decode(errors="replace").split())[-500:] or f"exit code {done.code}"
        raise AgentMissing(
            f"{program.packages[0]} could not be installed in the sandbox: {last}",
            "Check that the sandbox has npm and may reach its registry (SANDPIPER_EGRESS_ALLOW).",
        )


def _directory(sandbox: Sandbox, agent: str, program: Program) -> str:
    """Of the version that is installed, so that a new pin of the packages is not taken for an old one."""
    pinned = program.packages[0].rpartition("@")[2] if program.packages else ""
    return f"{sandbox.agents}/{agent}/{program.version or pinned or 'any'}"
