"""A program in a container, run by the engine's exec: what goes in, what comes out, and how it ended."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

from bot.errors import SandboxError

LAST_WORDS = 0.5  # seconds in which what was said beside a command's end arrives
PIECE = 1 << 16
MAX_SAID = 24 << 20  # bytes of a command's output; the supervisor's answers have 16 MB at most
LONGEST_END = 32  # bytes of what says the end

# $1 a word of ours, then the program, whose end is said after that word: an output that a lost connection has
# cut off is not taken for all of it.
RUN = 'end=$1; shift; "$@"; printf "\\n%s %d" "$end" "$?"'
# $1 path, $2 bytes. The SDK cannot close stdin alone.
UPLOAD = """
exec 2>&1; mkdir -p -- "$(dirname -- "$1")" && head -c "$2" >"$1.part" &&
test "$(wc -c <"$1.part")" -eq "$2" && mv -f -- "$1.part" "$1"
"""


def that_says_its_end(argv: Sequence[str], word: str) -> list[str]:
    return ["sh", "-c", RUN, "run", word, *argv]


async def listen(
    stream: Any,
    said: bytearray | Callable[[bytes], object],
    stdin: AsyncIterator[bytes] | None,
    word: str,
) -> int | None:
    """Hear what a program says; its exit code. None: the connection ended before it. stream: the SDK's."""
    ending = re.compile(rb"\n%s (\d+)\Z" % word.encode())
    take, beside = (said.extend, said.extend) if isinstance(said, bytearray) else (said, lambda data: None)
    feeding = asyncio.ensure_future(_feed(stream, stdin)) if stdin else None
    last, taken, code = b"", 0, None
    try:
        while message := await asyncio.wait_for(stream.read_out(), LAST_WORDS if code is not None else None):
            if message.stream != 1:
                beside(message.data)
                continue
            last += message.data
            if found := ending.search(last):
                code, last = int(found[1]), last[: found.start()]
            ready = len(last) if found else max(0, len(last) - LONGEST_END)
            taken += ready
            if taken > MAX_SAID and isinstance(said, bytearray):
                raise SandboxError(f"A command in the sandbox said more than {MAX_SAID} bytes.")
            take(last[:ready])
            last = last[ready:]
    except TimeoutError:
        if code is None:
            raise
    finally:
        if feeding:
            feeding.cancel()
            await asyncio.gather(feeding, return_exceptions=True)
    return code


async def _feed(stream: Any, stdin: AsyncIterator[bytes]) -> None:
    async for piece in stdin:
        await stream.write_in(piece)


async def pieces(content: bytes | Path) -> AsyncIterator[bytes]:
    if isinstance(content, bytes):
        for start in range(0, len(content), PIECE):
            yield content[start : start + PIECE]
        return
    with content.open("rb") as file:
        while piece := await asyncio.to_thread(file.read, PIECE):
            yield piece
