"""The bot as a child process of the demo: started, watched, and started again when it dies."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import httpx

from handlers.playground.changes import Changes

START_WITHIN = 60.0
STOP_WITHIN = 20.0
FIRST_DELAY = 0.5
LONGEST_DELAY = 30.0
LAST_LINES = 20
_ASK_EVERY = 0.1
_TAIL = 16 * 1024

State = Literal["starting", "running", "waiting", "stopped"]


class BotFailed(RuntimeError):
    """The bot could not be started; its own last lines are in the message."""


class BotProcess:
    """Runs `argv` with exactly `environment`, its output appended to `log`.

    It is well once `health_url` answers 200 and waits for nobody. `say` gets a line for people whenever
    something happens. A process that dies is started again after `first_delay` seconds, twice as long after
    each start that fails, at most LONGEST_DELAY. `delay` and all times are in seconds.
    """

    def __init__(
        self,
        argv: Sequence[str],
        environment: Mapping[str, str],
        *,
        directory: Path,
        log: Path,
        health_url: str,
        say: Callable[[str], None],
        first_delay: float = FIRST_DELAY,
    ) -> None:
        self.changes = Changes()
        self._argv = tuple(argv)
        self._environment = dict(environment)
        self._directory = directory
        self._log = log
        self._health_url = health_url
        self._say = say
        self._first_delay = first_delay
        self._process: asyncio.subprocess.Process | None = None
        self._state: State = "starting"
        self._restarts = 0
        self._trouble = ""
        self._keeping: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """The process that runs, if one does."""
        running = self._process is not None and self._process.returncode is None
        return self._process.pid if self._process is not None and running else None

    def view(self) -> dict[str, Any]:
        """For the page, ready for JSON. `trouble` is why it does not run."""
        return {
            "state": self._state,
            "pid": self.pid,
            "restarts": self._restarts,
            "trouble": self._trouble,
        }

    def kill(self) -> None:
        """SIGKILL, to the bot alone: what it has started in sandboxes lives on."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()

    async def start(self) -> None:
        """Start it and wait until it is well. Raises BotFailed if it ends before, or takes too long."""
        if not await self._spawn():
            trouble = self._trouble
            await self.stop()
            raise BotFailed(f"The bot did not start: {trouble}\n\n{self._last_lines()}")
        self._keeping = asyncio.create_task(self._keep(), name="bot-process")

    async def stop(self) -> None:
        """End it as an operator would (SIGTERM), by force after STOP_WITHIN. Twice is harmless."""
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.wait([self._keeping])
            self._keeping = None
        if self._process is not None and self._process.returncode is None:
            self._process.terminate()
            try:
                await asyncio.wait_for(self._process.wait(), STOP_WITHIN)
            except TimeoutError:
                self._process.kill()
                await self._process.wait()
        self._become("stopped")

    async def _keep(self) -> None:
        delay = self._first_delay
        while True:
            if self._process is not None:
                await self._process.wait()
            if self._state == "running":
                self._trouble = f"it {self._ending()}"
                delay = self._first_delay
                self._say(f"The bot has ended: {self._trouble}. Starting it again.")
            else:
                self._say(
                    f"The bot does not start: {self._trouble} Trying again in {delay:.0f} s.\n\n"
                    f"{self._last_lines()}"
                )
            self._become("waiting")
            await asyncio.sleep(delay)
            delay = min(delay * 2, LONGEST_DELAY)
            self._restarts += 1
            if await self._spawn():
                self._say(f"The bot runs again (pid {self.pid}).")

    async def _spawn(self) -> bool:
        """Start a process; is it well? If not it has ended, and `_trouble` says why."""
        self._become("starting")
        with self._log.open("ab") as log:
            self._process = process = await asyncio.create_subprocess_exec(
                *self._argv,
                cwd=self._directory,
                env=self._environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Ctrl-C in the terminal is for the demo, which ends the bot in good order.
                start_new_session=True,
            )
        self._become("starting")
        ended = asyncio.create_task(process.wait())
        healthy = asyncio.create_task(self._is_well())
        try:
            await asyncio.wait([ended, healthy], timeout=START_WITHIN, return_when=asyncio.FIRST_COMPLETED)
            if healthy.done() and not ended.done():
                self._trouble = ""
                self._become("running")
                return True
            if ended.done():
                self._trouble = f"it {self._ending()}."
            else:
                self._trouble = f"it did not answer at {self._health_url} within {START_WITHIN:.0f} s."
                process.kill()
                await process.wait()
            return False
        finally:
            for task in (ended, healthy):
                task.cancel()
            await asyncio.wait([ended, healthy])

    async def _is_well(self) -> None:
        """Returns when it answers."""
        async with httpx.AsyncClient(trust_env=False, timeout=5.0) as client:
            while True:
                with contextlib.suppress(httpx.TransportError):
                    answer = await client.get(self._health_url)
                    if answer.status_code == 200 and not answer.json().get("waiting_for"):
                        return
                await asyncio.sleep(_ASK_EVERY)

    def _ending(self) -> str:
        code = self._process.returncode if self._process is not None else None
        if code is not None and code < 0:
            return f"was killed by {signal.Signals(-code).name}"
        return f"ended with exit code {code}"

    def _last_lines(self) -> str:
        try:
            with self._log.open("rb") as log:
                log.seek(max(0, log.seek(0, os.SEEK_END) - _TAIL))
                lines = log.read().decode(errors="replace").splitlines()[-LAST_LINES:]
        except FileNotFoundError:
            lines = []
        return "\n".join(f"    {line}" for line in lines) or "    (it said nothing)"

    def _become(self, state: State) -> None:
        self._state = state
        self.changes.note(state)
