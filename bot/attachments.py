"""Files that people attach to their messages, brought into the sandbox before the agent reads of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from bot.errors import SandboxError, SurfaceBusy, SurfaceError
from bot.models import Attachment, Input
from bot.patience import in_time, patiently
from bot.ports import Clock, Sandbox, Surface
from bot.shared_files import LARGEST_FILE, fit_name, size_words
from bot.workspace import own_directory

PICTURES = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp"})
MOST = 10  # of one message
TRIES = 3
PATIENCE = 180.0  # seconds for all that is brought at once: a turn's preparation has a deadline of its own
NAME_BYTES = 180  # of UTF-8: file systems take 255, and what is on its way has a longer name


@dataclass(frozen=True, slots=True)
class Brought:
    """Where a file is in the sandbox; or why it is not there. name: fit to be shown."""

    name: str
    size: int
    path: str = ""
    why: str = ""
    picture: bool = False

    @property
    def told(self) -> str:
        """For the agent."""
        if self.why:
            return f"(not here: {self.name}. {self.why})"
        return f"(attached: {self.path}, {size_words(self.size)})"

    @property
    def in_words(self) -> str:
        """For people."""
        return f"Not brought to the agent: `{self.name.replace('`', 'ˋ')}`. {self.why}"


class Attachments:
    """Those of one attempt at a turn of a session. scratch: where they are on their way."""

    def __init__(
        self, surfaces: Mapping[str, Surface], sandbox: Sandbox, session: str, clock: Clock, scratch: Path
    ) -> None:
        self._surfaces = surfaces
        self._sandbox = sandbox
        self._directory = f"{own_directory(sandbox, session)}/attached"
        self._clock = clock
        self._scratch = scratch
        self._brought: dict[int, tuple[Brought, ...]] = {}

    def missing(self, inputs: Iterable[Input]) -> bool:
        """Is there any that was not looked for yet?"""
        return any(item.attachments and item.id not in self._brought for item in inputs)

    async def bring(self, inputs: Sequence[Input]) -> None:
        """Each to its own place, the same one when it is done again. What cannot be had fails nothing."""
        until = self._clock.now() + PATIENCE
        for item in inputs:
            if not item.attachments or item.id in self._brought:
                continue
            brought = [await self._one(item, *one, until) for one in enumerate(item.attachments[:MOST], 1)]
            if (left := len(item.attachments) - MOST) > 0:
                brought.append(Brought(f"{left} more", 0, why=f"Of one message {MOST} are brought."))
            self._brought[item.id] = tuple(brought)

    def told(self, inputs: Iterable[Input]) -> tuple[Input, ...]:
        """The same, with where their files are."""
        return tuple(
            replace(item, text="\n".join([item.text, *(one.told for one in self._brought.get(item.id, ()))]))
            for item in inputs
        )

    def trouble(self, inputs: Iterable[Input]) -> tuple[str, ...]:
        """What people should know. It is recorded with the prompt, or a restart would say it again."""
        return tuple(one.in_words for item in inputs for one in self._brought.get(item.id, ()) if one.why)

    def pictures(self, inputs: Iterable[Input]) -> tuple[str, ...]:
        """Paths in the sandbox of those that can be looked at."""
        return tuple(one.path for item in inputs for one in self._brought.get(item.id, ()) if one.picture)

    async def _one(self, item: Input, number: int, file: Attachment, until: float) -> Brought:
        name = fit_name(file.name)
        if file.size > LARGEST_FILE:
            most = size_words(LARGEST_FILE)
            why = f"It has {size_words(file.size)}, and at most {most} are taken."
            return Brought(name, file.size, why=why)
        copy = self._scratch / f"attached-{item.id}-{number}"
        path = f"{self._directory}/{item.id}/{number}-{file_name(name)}"
        try:
            surface = self._surfaces.get(item.thread.surface)
            if surface is None:
                raise SurfaceError(f"{item.thread.surface} is not configured any more.")
            work = self._carry(surface, file, copy, path)
            await in_time(self._clock, until - self._clock.now(), work)
            return Brought(name, copy.stat().st_size, path, picture=file.type in PICTURES)
        except (SurfaceBusy, SurfaceError, SandboxError) as error:
            return Brought(name, file.size, why=str(error))
        except TimeoutError:
            return Brought(name, file.size, why="It was too long on its way.")
        except OSError as error:
            return Brought(name, file.size, why=f"The bot's disk fails ({error.strerror or error}).")
        finally:
            with suppress(OSError):
                copy.unlink(missing_ok=True)

    async def _carry(self, surface: Surface, file: Attachment, copy: Path, path: str) -> None:
        await patiently(self._clock, lambda: surface.fetch(file, copy), TRIES)
        await patiently(self._clock, lambda: self._sandbox.upload(copy, path), TRIES)


def file_name(name: str) -> str:
    """One that a file system takes, with its ending."""
    if len(name.encode()) <= NAME_BYTES:
        return name
    ending = PurePosixPath(name).suffix[:20]
    stem = name.removesuffix(ending).encode()[: NAME_BYTES - len(ending.encode())]
    return stem.decode(errors="ignore") + ending
