"""`get path`: a file of a session's workspace, brought into the thread for whoever may work in it."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import PurePosixPath

from bot.agents.wire import plain
from bot.answers import Answers
from bot.errors import FileRefused, SandboxError, WorkspaceError
from bot.models import Message, SandboxRow, Saying, SayingKind, Session, SharedFile
from bot.ports import Store
from bot.sandboxes import Sandboxes
from bot.shared_files import LARGEST_FILE, SharedFiles, size_words
from bot.workspace import Workspaces

PATIENCE = 60.0  # seconds until the sandbox runs and the file is here: the thread's next message waits
SHOWN_CHARS = 200
LONGEST_PATH = 4096  # bytes, as systems have it

NO_WORKSPACE = "There is no workspace in this thread yet, so there are no files to get."
NOT_A_VERB = "If that was meant for the agent, write it as a sentence."


class FileVerb:
    """files: where copies wait until they are said."""

    def __init__(
        self, store: Store, sandboxes: Sandboxes, workspaces: Workspaces, files: SharedFiles
    ) -> None:
        self._store = store
        self._sandboxes = sandboxes
        self._workspaces = workspaces
        self._files = files
        self._answers = Answers(store)

    async def obey(self, message: Message, session: Session | None) -> str:
        """Whether the author may is asked before; a stopped sandbox is started for it."""
        row = None
        if session is not None and session.branch:
            row = await self._store.sandbox(self._sandboxes.key(session.owner))
        if session is None or row is None or not row.provider_id:
            return await self._answers.note(message, "no workspace", NO_WORKSPACE)
        try:
            async with asyncio.timeout(PATIENCE):
                file = await self._fetched(message, session, row)
        except (FileRefused, SandboxError, WorkspaceError) as error:
            return await self._not_got(message, f"{error} {NOT_A_VERB}")
        except TimeoutError:
            return await self._not_got(message, "It took too long. Try again.")
        except OSError as error:
            return await self._not_got(message, f"The bot's disk fails ({error.strerror or error}).")
        saying = self._answers.saying(message, "get", SayingKind.FILE, "")
        new = await self._store.say(Saying(saying.key, saying.kind, saying.thread, file=file))
        if not new and file.path not in await self._store.shared_files():  # said and dropped before
            self._files.drop(file)
        return "got"

    async def _not_got(self, message: Message, why: str) -> str:
        shown = plain(message.options["path"])[:SHOWN_CHARS].replace("`", "ˋ")
        return await self._answers.note(message, "not got", f"I cannot get `{shown}`. {why}")

    async def _fetched(self, message: Message, session: Session, row: SandboxRow) -> SharedFile:
        if not _can_name_a_file(message.options["path"]):
            raise FileRefused("No file can have that name.")
        sandbox = await self._sandboxes.start(row)
        await sandbox.enter()
        inside, size = await self._workspaces.file(session, sandbox, message.options["path"])
        if size > LARGEST_FILE:
            most = size_words(LARGEST_FILE)
            raise FileRefused(f"It has {size_words(size)}, and at most {most} are brought.")
        copy = self._files.directory / f"get-{hashlib.sha256(message.key.encode()).hexdigest()[:32]}"
        if not copy.exists():  # else it waits to be said, and may be read at this moment
            part = copy.with_name(f"{copy.name}.part")
            await sandbox.download(inside, part, limit=LARGEST_FILE)
            part.replace(copy)
        return SharedFile(str(copy), PurePosixPath(inside).name, "", copy.stat().st_size)


def _can_name_a_file(path: str) -> bool:
    try:
        return "\0" not in path and len(path.encode()) <= LONGEST_PATH
    except UnicodeEncodeError:
        return False
