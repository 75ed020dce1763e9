"""What a program said last, for people who wonder why it ended. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable

from bot.agents.wire import plain
from bot.redact import redact

# Far more is kept than is shown: a secret is known by its beginning, so that has to be there when it is
# looked for, and what is shown is cut only then.
KEPT_BYTES = 64 * 1024
SHOWN_CHARS = 1500

_KEY_END = re.compile(r"-----END [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----")
_KEY_BODY = re.compile(r"\A(?:[ \t]*[A-Za-z0-9+/=]{16,}[ \t]*(?:\n|\Z))+")


class LastWords:
    """The end of an output. secrets: what the program was given. cut: what is heard first may be the rest
    of something."""

    def __init__(self, secrets: Iterable[str] = (), *, cut: bool = False) -> None:
        self._secrets = tuple(secrets)
        self._cut = cut
        self._heard = bytearray()

    def hear(self, data: bytes) -> None:
        self._heard += data
        if len(self._heard) > KEPT_BYTES:
            del self._heard[:-KEPT_BYTES]
            self._cut = True

    def hear_line(self, data: bytes) -> None:
        """A line by itself, of another output."""
        between = b"" if not self._heard or self._heard.endswith(b"\n") else b"\n"
        self.hear(between + data + b"\n")

    def text(self) -> str:
        """Whole lines, without secrets or pieces of them."""
        heard = plain(self._heard.decode(errors="replace"))
        clean = redact(_whole(heard) if self._cut else heard, self._secrets).strip()
        if len(clean) <= SHOWN_CHARS:
            return clean
        shown = clean[-SHOWN_CHARS:]
        return shown.partition("\n")[2].strip() or shown


def _whole(heard: str) -> str:
    """Without what was cut off at its beginning: a line, and a private key of which this is the rest."""
    heard = heard.partition("\n")[2]
    end = _KEY_END.search(heard)
    if end and "-----BEGIN " not in heard[: end.start()]:
        heard = heard[end.end() :]
    return _KEY_BODY.sub("", heard)
