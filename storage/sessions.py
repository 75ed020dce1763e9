"""Sessions and their aliases: the threads and branches that are the same piece of work."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

from bot.errors import SandpiperError
from bot.events import Event, Named
from bot.models import (
    TREE,
    Choice,
    Closing,
    Further,
    Memory,
    NewSession,
    PullRequest,
    Repository,
    Session,
    Stale,
    ThreadKey,
    branch_alias,
)
from storage import deliveries, people, repositories
from storage.database import Row, Tx

# A pull request is a thread of the forge: scope the repository's id, id its number.
FORGE = "github"
BRANCH = "branch:"


def lock(tx: Tx, id: str) -> Row:
    """The session's row, ours until the end: the first statement of all that touches a session."""
    row = tx.lock("SELECT * FROM sessions WHERE id = ?", id)
    if row is None:
        raise _unknown(id)
    return row


def get(tx: Tx, id: str) -> Session:
    row = tx.one("SELECT * FROM sessions WHERE id = ?", id)
    if row is None:
        raise _unknown(id)
    thread = ThreadKey.parse(row["thread"])
    return Session(
        id=row["id"],
        tenant=row["tenant"],
        owner=people.known(tx, row["owner"], thread.surface),
        thread=thread,
        repository=None if row["repository"] is None else repositories.get(tx, row["repository"]),
        agent=row["agent"],
        model=row["model"],
        title=row["title"],
        branch=row["branch"],
        base=row["base"],
        base_sha=row["base_sha"],
        memory=Memory(row["resume_token"], row["memory_agent"], row["memory_version"], row["memory_box"]),
        ready=row["ready"],
        published=row["published"],
        pull_request=row["pull_request"],
        pull_request_url=row["pull_request_url"],
        created_at=row["created_at"],
        effort=row["effort"],
        since=row["since"],
        named=row["named"],
        description=row["description"],
        permissions=row["permissions"],
        published_in=row["published_in"],
        further=tuple(one for one in _further(tx, id) if not one.left_out),
        left_out=tuple(one for one in _further(tx, id) if one.left_out),
        opened_in=row["opened_in"],
        hooked_in=row["hooked_in"],
    )


def _further(tx: Tx, id: str) -> tuple[Further, ...]:
    rows = tx.all("SELECT * FROM further_repositories WHERE session = ? ORDER BY id", id)
    return tuple(
        Further(
            repository=repositories.get(tx, row["repository"]),
            tree=row["tree"],
            base=row["base"],
            base_sha=row["base_sha"],
            ready=row["ready"],
            published=row["published"],
            pull_request=row["pull_request"],
            pull_request_url=row["pull_request_url"],
            published_in=row["published_in"],
            left_out=row["left_out"],
        )
        for row in rows
    )


def of_alias(tx: Tx, alias: str) -> str | None:
    row = tx.one("SELECT session FROM aliases WHERE alias = ?", alias)
    return None if row is None else str(row["session"])


def create(tx: Tx, new: NewSession) -> Row:
    if new.repository is not None:
        repositories.save(tx, new.repository)
    row = tx.single(
        "INSERT INTO sessions (id, tenant, owner, thread, repository, agent, model, title, effort, since,"
        " permissions, created_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING *",
        new.id,
        new.tenant,
        new.owner,
        str(new.thread),
        None if new.repository is None else new.repository.id,
        new.agent,
        new.model,
        new.title,
        new.effort,
        new.since,
        new.permissions,
        tx.now,
    )
    add_further(tx, new.id, new.further)
    add_alias(tx, new.id, str(new.thread))
    return row


def add_further(tx: Tx, id: str, further: Sequence[Repository]) -> None:
    for repository in further:
        repositories.save(tx, repository)
        taken = {TREE, *(one.tree for one in _further(tx, id))}
        full, (_, _, short) = repository.full_name, repository.full_name.partition("/")
        names = (*map(_directory, (short, full)), f"repository-{repository.id}")
        tx.run(
            "INSERT INTO further_repositories (session, repository, tree) VALUES (?, ?, ?)",
            id,
            repository.id,
            next(name for name in names if name and name not in taken),
        )


def _directory(name: str) -> str:
    """Without a dot, as what lies beside the worktrees has one in its name."""
    return re.sub(r"[^A-Za-z0-9_]+", "-", name).strip("-")


def add_alias(tx: Tx, session: str, alias: str) -> None:
    """An alias that another session has already stays there."""
    tx.run(
        "INSERT INTO aliases (alias, session) VALUES (?, ?) ON CONFLICT (alias) DO NOTHING", alias, session
    )
    deliveries.unpark(tx, alias)


def threads(tx: Tx, id: str) -> Sequence[ThreadKey]:
    rows = tx.all("SELECT alias FROM aliases WHERE session = ? ORDER BY id", id)
    return [ThreadKey.parse(row["alias"]) for row in rows if not row["alias"].startswith(BRANCH)]


def set_repository(tx: Tx, id: str, repository: Repository, further: Sequence[Repository]) -> None:
    repositories.save(tx, repository)
    tx.run("UPDATE sessions SET repository = ? WHERE id = ?", repository.id, id)
    add_further(tx, id, further)


def leave_out(tx: Tx, id: str, repository: int, why: str) -> Session:
    lock(tx, id)
    tx.run(
        "UPDATE further_repositories SET left_out = ? WHERE session = ? AND repository = ?",
        why,
        id,
        repository,
    )
    return get(tx, id)


def set_workspace(tx: Tx, id: str, branch: str, base: str, base_sha: str, repository: int) -> Session:
    row = lock(tx, id)
    if not row["branch"]:
        tx.run("UPDATE sessions SET branch = ? WHERE id = ?", branch, id)
    if row["put_away_tried"]:
        tx.run("UPDATE sessions SET put_away = 0, put_away_tried = 0 WHERE id = ?", id)
    known = row if _is_first(row, repository) else _further_row(tx, id, repository)
    if not known["base"]:
        _update(tx, row, repository, base=base, base_sha=base_sha)
        if row["repository"] is not None:
            add_alias(tx, id, branch_alias(repository or row["repository"], row["branch"] or branch))
    elif known["base"] != base:
        _update(tx, row, repository, base=base)
    return get(tx, id)


def opened_in(tx: Tx, id: str, sandbox: str) -> Session:
    tx.run("UPDATE sessions SET opened_in = ?, hooked_in = '' WHERE id = ?", sandbox, id)
    return get(tx, id)


def hooked_in(tx: Tx, id: str, sandbox: str) -> Session:
    tx.run("UPDATE sessions SET hooked_in = ? WHERE id = ?", sandbox, id)
    return get(tx, id)


def _is_first(session: Row, repository: int) -> bool:
    return repository in (0, session["repository"])


def _further_row(tx: Tx, session: str, repository: int) -> Row:
    return tx.single(
        "SELECT * FROM further_repositories WHERE session = ? AND repository = ?", session, repository
    )


def _update(tx: Tx, session: Row, repository: int, **columns: str | int) -> None:
    """What a session has in one of its repositories."""
    words = ", ".join(f"{name} = ?" for name in columns)
    if _is_first(session, repository):
        tx.run(f"UPDATE sessions SET {words} WHERE id = ?", *columns.values(), session["id"])  # noqa: S608 our names
    else:
        tx.run(
            f"UPDATE further_repositories SET {words} WHERE session = ? AND repository = ?",  # noqa: S608
            *columns.values(),
            session["id"],
            repository,
        )


def remember(tx: Tx, id: str, memory: Memory) -> None:
    tx.run(
        "UPDATE sessions SET resume_token = ?, memory_agent = ?, memory_version = ?, memory_box = ?"
        " WHERE id = ?",
        memory.token,
        memory.agent,
        memory.version,
        memory.box,
        id,
    )


def choose(tx: Tx, id: str, choice: Choice) -> None:
    """Another agent, or the same one otherwise. Another one does not remember: its conversation is new. Model
    and effort are words of the one before; permissions are ours, and stay."""
    if not choice:
        return
    row = tx.single("SELECT agent, model, effort, permissions FROM sessions WHERE id = ?", id)
    another = bool(choice.agent) and choice.agent != row["agent"]
    tx.run(
        "UPDATE sessions SET agent = ?, model = ?, effort = ?, permissions = ? WHERE id = ?",
        choice.agent or row["agent"],
        choice.model or ("" if another else row["model"]),
        choice.effort or ("" if another else row["effort"]),
        choice.permissions or row["permissions"],
        id,
    )
    if another:
        remember(tx, id, Memory(""))


_WORKED_WITH = ("agent", "model", "effort", "resume_token", "memory_agent", "memory_version", "memory_box")


def worked_with(tx: Tx, id: str) -> dict[str, str]:
    """The agent, how it works but for its permissions, and what it remembers."""
    row = tx.single("SELECT * FROM sessions WHERE id = ?", id)
    return {name: row[name] for name in _WORKED_WITH}


def work_with(tx: Tx, id: str, before: Mapping[str, str]) -> None:
    words = ", ".join(f"{name} = ?" for name in _WORKED_WITH)
    tx.run(f"UPDATE sessions SET {words} WHERE id = ?", *(before[name] for name in _WORKED_WITH), id)  # noqa: S608 our names


def name(tx: Tx, id: str, events: Sequence[Event]) -> None:
    """What the agent calls its work, where one of these events says so."""
    for event in events:
        if isinstance(event, Named):
            tx.run(
                "UPDATE sessions SET named = ?, description = CASE WHEN ? = '' THEN description ELSE ? END"
                " WHERE id = ?",
                event.title,
                event.description,
                event.description,
                id,
            )


def worked(tx: Tx, person: int) -> Sequence[str]:
    """The sessions of a person that have a branch, newest first."""
    rows = tx.all(
        "SELECT id FROM sessions WHERE owner = ? AND branch <> '' ORDER BY created_at DESC, id", person
    )
    return [row["id"] for row in rows]


def close_pull_request(tx: Tx, closing: Closing) -> bool:
    closed_at = 0.0 if closing.open else tx.now
    changed = [
        tx.run(
            f"UPDATE {table} SET closed_at = ? WHERE repository = ? AND pull_request = ?",  # noqa: S608 our names
            closed_at,
            closing.repository,
            closing.number,
        )
        for table in ("sessions", "further_repositories")
    ]
    return any(changed)


def stale(tx: Tx, person: int, stale: Stale, limit: int) -> Sequence[str]:
    rows = tx.all(
        "WITH mine AS (SELECT id, created_at, COALESCE((SELECT MAX(CASE WHEN ended_at = 0 THEN ?"
        " ELSE ended_at END) FROM turns WHERE turns.session = sessions.id), 0) AS worked FROM sessions"
        " WHERE owner = ? AND branch <> '' AND put_away = 0 AND put_away_tried < ?),"
        " pulls AS (SELECT id AS session, closed_at FROM sessions WHERE owner = ? AND pull_request <> 0"
        " UNION ALL SELECT session, closed_at FROM further_repositories"
        " WHERE pull_request <> 0 AND left_out = '')"
        " SELECT id FROM mine WHERE worked < ? OR (worked < ?"
        " AND EXISTS (SELECT 1 FROM pulls WHERE session = mine.id)"
        " AND NOT EXISTS (SELECT 1 FROM pulls WHERE session = mine.id AND (closed_at = 0 OR closed_at >= ?)))"
        " ORDER BY created_at, id LIMIT ?",
        math.inf,
        person,
        stale.tried,
        person,
        stale.worked,
        stale.closed,
        stale.closed,
        limit,
    )
    return [row["id"] for row in rows]


def put_away(tx: Tx, id: str, *, whole: bool) -> None:
    tx.run("UPDATE sessions SET put_away = ?, put_away_tried = ? WHERE id = ?", int(whole), tx.now, id)


def of_owner(tx: Tx, person: int, place: str) -> Sequence[str]:
    """The sessions of a person with an open turn whose first thread is in this place ("surface:scope");
    "": all of them."""
    rows = tx.all(
        "SELECT sessions.id FROM sessions JOIN turns ON turns.session = sessions.id"
        " WHERE sessions.owner = ? AND substr(sessions.thread, 1, ?) = ?"
        " AND turns.state IN ('queued', 'preparing', 'running', 'finishing') ORDER BY turns.id",
        person,
        len(place) + 1 if place else 0,
        f"{place}:" if place else "",
    )
    return [row["id"] for row in rows]


def set_ready(tx: Tx, id: str, commit: str, repository: int) -> None:
    _update(tx, lock(tx, id), repository, ready=commit)


def set_published(
    tx: Tx, id: str, turn: int, commit: str, pull_request: PullRequest, repository: int
) -> None:
    row = lock(tx, id)
    tx.run("UPDATE sessions SET description = '' WHERE id = ?", id)
    number, url = pull_request.number, pull_request.url
    _update(
        tx,
        row,
        repository,
        ready="",
        published=commit,
        pull_request=number,
        pull_request_url=url,
        closed_at=0,
        published_in=turn,
    )
    add_alias(tx, id, str(pull_request_thread(repository or row["repository"], number)))


def pull_request_thread(repository: int, number: int) -> ThreadKey:
    return ThreadKey(FORGE, str(repository), str(number))


def _unknown(id: str) -> SandpiperError:
    return SandpiperError(f"There is no session {id}.", "It may belong to another data directory.")
