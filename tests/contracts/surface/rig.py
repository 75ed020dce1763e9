"""What the contract suite needs of each surface: a place to talk, and eyes to see what was said there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from bot.models import Identity, Mark, MessageRef, ThreadKey
from bot.ports import Surface


class SurfaceRig(Protocol):
    """A surface and the service behind it.

    member: somebody of the organisation. outsider: somebody who is not, or None where the surface does
    not know (`external` is then "" for all). takes_files: the service has a place for files of any kind, else
    for text only. largest: bytes of a file that it takes. alive: words that
    call or load something there.
    """

    surface: Surface
    member: Identity
    outsider: Identity | None
    takes_files: bool
    largest: int
    alive: Sequence[str]

    async def open(self, text: str) -> tuple[ThreadKey, MessageRef]:
        """`member` opens a thread. Returns it with the place of its first message."""
        ...

    async def reply(self, thread: ThreadKey, text: str) -> tuple[MessageRef, str]:
        """`member` writes in the thread. Returns where, and when as in Message.sent."""
        ...

    async def posts(self, thread: ThreadKey) -> Sequence[str]:
        """Everything that we posted in the thread and that stands there now, oldest first: words, labels
        and addresses as the service stores them."""
        ...

    async def marks(self, ref: MessageRef) -> Sequence[Mark]:
        """The receipts that stand on a message, by whatever sign the surface shows them; each sign once."""
        ...

    async def delete(self, ref: MessageRef) -> None:
        """Somebody deletes a post of ours."""
        ...

    async def readable(self, thread: ThreadKey) -> Sequence[bytes]:
        """What people can read of the files that we shared in the thread: the files themselves, or what is
        shown of them."""
        ...

    def called(self, person: Identity) -> str:
        """How a stored post calls a person so that the service notifies them."""
        ...

    def lose_next_answer(self) -> None:
        """The next post takes effect, but its answer never arrives."""
        ...

    def lose_next_file_answer(self) -> None:
        """The same, for the sharing of a file."""
        ...

    def limit_next(self, seconds: int) -> None:
        """The next post is refused for its rate, with the time to wait."""
        ...

    def break_next(self) -> None:
        """The next post meets an internal error of the service."""
        ...
