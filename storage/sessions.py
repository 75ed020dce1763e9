"""Sessions and their aliases: the threads and branches that are the same piece of work."""

from __future__ import annotations

from collections.abc import Sequence

from bot.errors import SandpiperError
from bot.events import Event, Named
from bot.models import Choice, Memory, NewSession, PullRequest, Repository, Session, ThreadKey, branch_alias
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
    add_alias(tx, new.id, str(new.thread))
    return row


def add_alias(tx: Tx, session: str, alias: str) -> None:
    """An alias that another session has already stays there."""
    tx.run(
        "INSERT INTO aliases (alias, session) VALUES (?, ?) ON CONFLICT (alias) DO NOTHING", alias, session
    )
    deliveries.unpark(tx, alias)


def threads(tx: Tx, id: str) -> Sequence[ThreadKey]:
    rows = tx.all("SELECT alias FROM aliases WHERE session = ? ORDER BY id", id)
    return [ThreadKey.parse(row["alias"]) for row in rows if not row["alias"].startswith(BRANCH)]


def set_repository(tx: Tx, id: str, repository: Repository) -> None:
    repositories.save(tx, repository)
    tx.run("UPDATE sessions SET repository = ? WHERE id = ?", repository.id, id)


def set_workspace(tx: Tx, id: str, branch: str, base: str, base_sha: str) -> Session:
    row = lock(tx, id)
    if not row["branch"]:
        tx.run(
            "UPDATE sessions SET branch = ?, base = ?, base_sha = ? WHERE id = ?",
            branch,
            base,
            base_sha,
            id,
        )
        if row["repository"] is not None:
            add_alias(tx, id, branch_alias(row["repository"], branch))
    elif row["base"] != base or row["put_away"]:
        tx.run("UPDATE sessions SET base = ?, put_away = 0 WHERE id = ?", base, id)
    return get(tx, id)


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


def stale(tx: Tx, person: int, before: float, limit: int) -> Sequence[str]:
    rows = tx.all(
        "SELECT id FROM sessions WHERE owner = ? AND branch <> '' AND put_away = 0"
        " AND NOT EXISTS (SELECT 1 FROM turns WHERE turns.session = sessions.id AND"
        " (turns.state IN ('queued', 'preparing', 'running', 'finishing') OR turns.ended_at >= ?))"
        " ORDER BY created_at, id LIMIT ?",
        person,
        before,
        limit,
    )
    return [row["id"] for row in rows]


def put_away(tx: Tx, id: str) -> None:
    tx.run("UPDATE sessions SET put_away = 1 WHERE id = ?", id)


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


def set_ready(tx: Tx, id: str, commit: str) -> None:
    tx.run("UPDATE sessions SET ready = ? WHERE id = ?", commit, id)


def set_published(tx: Tx, id: str, commit: str, pull_request: PullRequest) -> None:
    row = tx.single(
        "UPDATE sessions SET ready = '', description = '', published = ?, pull_request = ?,"
        " pull_request_url = ? WHERE id = ? RETURNING repository",
        commit,
        pull_request.number,
        pull_request.url,
        id,
    )
    add_alias(tx, id, str(pull_request_thread(row["repository"], pull_request.number)))


def pull_request_thread(repository: int, number: int) -> ThreadKey:
    return ThreadKey(FORGE, str(repository), str(number))


def _unknown(id: str) -> SandpiperError:
    return SandpiperError(f"There is no session {id}.", "It may belong to another data directory.")
