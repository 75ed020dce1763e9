"""Tokens and money per turn. The newest figures of a key replace the older ones."""

from __future__ import annotations

from collections.abc import Sequence

from bot.events import Event, Usage
from storage.database import Tx


def save(tx: Tx, turn: int, tenant: str, person: int, usage: Usage) -> None:
    tx.run(
        "INSERT INTO usage"
        " (turn, key, tenant, person, at, tokens_in, tokens_out, tokens_cached, micro_usd)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (turn, key) DO UPDATE SET at = excluded.at,"
        " tokens_in = excluded.tokens_in, tokens_out = excluded.tokens_out,"
        " tokens_cached = excluded.tokens_cached, micro_usd = excluded.micro_usd",
        turn,
        usage.key,
        tenant,
        person,
        tx.now,
        usage.tokens_in,
        usage.tokens_out,
        usage.tokens_cached,
        usage.micro_usd,
    )


def save_all(tx: Tx, turn: int, tenant: str, person: int, events: Sequence[Event]) -> None:
    for event in events:
        if isinstance(event, Usage):
            save(tx, turn, tenant, person, event)
