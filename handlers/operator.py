"""The operator's door: a unix socket in the data directory, by which the command line speaks to a bot.

Who can open the directory is the operator; nothing listens on a network. A line of JSON asks, one answers:
{"do": "stop", "id": "local-…", "yes": false}, then {"said": "…"} or {"refused": "…"}.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

from bot.errors import SandpiperError

log = logging.getLogger(__name__)

SOCKET = "operator.sock"
PATIENCE = 300.0  # seconds for an answer: a provider may take its time
ASKED_WITHIN = 10.0  # seconds that somebody who has connected may take to ask

Obey = Callable[[str, str, bool], Awaitable[str]]


@asynccontextmanager
async def operators_door(directory: Path, obey: Obey) -> AsyncIterator[None]:
    """Open while the context is. `obey` raises SandpiperError when it refuses."""

    async def asked(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(ASKED_WITHIN):
                request = json.loads(await reader.readline())
            answer = {"said": await obey(str(request["do"]), str(request["id"]), request["yes"] is True)}
        except SandpiperError as refused:
            answer = {"refused": str(refused)}
        except (ValueError, KeyError, TypeError, TimeoutError):
            answer = {"refused": "That is no question that this bot understands: is it of the same release?"}
        except Exception:  # the outermost loop of a question
            log.exception("an operator's question failed")
            answer = {"refused": "Something went wrong on the bot's side; its log has it."}
        with contextlib.suppress(OSError):
            writer.write(json.dumps(answer).encode() + b"\n")
            await writer.drain()
            writer.close()

    (directory / SOCKET).unlink(missing_ok=True)  # of a bot that was killed: whoever comes here has the lock
    with _short(directory) as path:
        server = await asyncio.start_unix_server(asked, path)
        Path(path).chmod(0o600)
    try:
        yield
    finally:
        server.close()
        (directory / SOCKET).unlink(missing_ok=True)


async def ask_the_bot(directory: Path, do: str, id: str, yes: bool) -> str | None:
    """The running bot's answer; None: none runs on this directory. Raises SandpiperError when it refuses."""
    try:
        with _short(directory) as path:
            reader, writer = await asyncio.open_unix_connection(path)
    except (FileNotFoundError, ConnectionRefusedError):
        return None
    except OSError as error:
        raise SandpiperError(f"The bot in {directory} cannot be asked: {error.strerror or error}.") from error
    try:
        async with asyncio.timeout(PATIENCE):
            writer.write(json.dumps({"do": do, "id": id, "yes": yes}).encode() + b"\n")
            answer = json.loads(await reader.readline())
    except (OSError, ValueError) as error:  # TimeoutError is an OSError
        raise SandpiperError(
            f"The bot in {directory} gave no answer.", "Look at its log: it may have been done."
        ) from error
    finally:
        writer.close()
    if "said" not in answer:
        raise SandpiperError(str(answer.get("refused")))
    return str(answer["said"])


@contextlib.contextmanager
def _short(directory: Path) -> Iterator[str]:
    """A unix address holds 107 bytes; a descriptor of the directory makes every path short."""
    place = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{place}/{SOCKET}"
    finally:
        os.close(place)
