"""From a labelled GitHub issue to a pull request, through real webhooks, PyGithub, git and bubblewrap."""

from __future__ import annotations

import re

import httpx
import pytest

from handlers.playground.github_state import Comment, Issue
from tests.e2e.rig import CODE_IN, REPOSITORY, Rig, at_gate
from tests.e2e.witness import Witness, until

pytestmark = pytest.mark.asyncio(loop_scope="module")

LABEL = "sandpiper"
NOBODY = "http://127.0.0.1:1/"  # nothing listens there
WORK = "!write work.txt work\n!commit Work\n!answer It works."
MORE = "!write more.txt more\n!commit More\n!answer More of it."


def issue(r: Rig, body: str, *, by: str = "ana", title: str = "Make it work") -> int:
    return r.github.open_issue(REPOSITORY, by, title, body)


def labelled(r: Rig, body: str, *, by: str = "ana") -> int:
    """An issue that its author has labelled."""
    number = issue(r, body, by=by)
    r.github.label(REPOSITORY, number, LABEL, by)
    return number


def said(r: Rig, number: int, marker: str = "") -> list[Comment]:
    """The bot's comments, of one kind: "turn" is the timeline."""
    comments = r.github.comments(REPOSITORY, number)
    return [one for one in comments if one.user is r.github.bot and f"<!-- sandpiper:{marker}" in one.body]


async def told(r: Rig, number: int, marker: str, count: int = 1) -> Comment:
    await r.github_until(lambda: len(said(r, number, marker)) >= count)
    return said(r, number, marker)[count - 1]


async def final(r: Rig, number: int, count: int = 1) -> Comment:
    return await told(r, number, "final:", count)


async def status(r: Rig, number: int, by: str = "ana") -> str:
    """The bot's answer to `status`; what was written in the thread before has had its effect then."""
    before = len(said(r, number, "status:"))
    r.github.comment(REPOSITORY, number, by, f"@{r.github.slug} status")
    return (await told(r, number, "status:", before + 1)).body


def pull_of(r: Rig, comment: Comment) -> Issue:
    (number,) = set(re.findall(rf"/{REPOSITORY}/pull/(\d+)", comment.body))
    return r.github.issue(REPOSITORY, int(number))


async def diff_of(r: Rig, comment: Comment) -> str:
    return await r.github.diff(REPOSITORY, pull_of(r, comment).number)


async def test_a_label_becomes_a_pull_request_of_the_labeller(shared: Rig) -> None:
    greeting = shared.github.issues(REPOSITORY)[0]
    assert greeting.user.login == "ana"
    shared.github.label(REPOSITORY, greeting.number, LABEL, "ben")
    last = await final(shared, greeting.number)
    pull = pull_of(shared, last)
    assert "greeting.py" in await diff_of(shared, last)
    assert pull.user is shared.github.bot and f"Fixes #{greeting.number}" in (pull.body or "")
    assert "Asked for by @ben" in (pull.body or "")
    assert "@ben" in last.body and "@ana" not in last.body
    (timeline,) = said(shared, greeting.number, "turn:")
    assert "Worked for" in timeline.body and f"/pull/{pull.number}" in timeline.body
    assert len(said(shared, greeting.number)) == 2 and not said(shared, pull.number)
    assert shared.github.calls_to("PATCH", rf"/comments/{timeline.id}$")
    assert not shared.github.calls_to("PATCH", rf"/comments/{last.id}$")
    assert "owner ben" in await status(shared, greeting.number)


async def test_a_label_by_somebody_without_write_access_is_refused(shared: Rig) -> None:
    shared.github.add_user("tess", {REPOSITORY: "triage"})
    number = issue(shared, WORK)
    shared.github.label(REPOSITORY, number, LABEL, "tess")
    refusal = await told(shared, number, "denied:")
    assert "tess may not write to acme/web (role: triage)" in refusal.body
    assert "no session" in await status(shared, number)
    assert not said(shared, number, "turn:")


async def test_an_issue_and_its_pull_request_are_one_session(shared: Rig) -> None:
    number = labelled(shared, WORK)
    pull = pull_of(shared, await final(shared, number))
    shared.github.edit_issue(REPOSITORY, number, "ana", body=MORE)
    with shared.holding(CODE_IN) as arrived:  # both at once: one turn, and both have their effect
        shared.github.unlabel(REPOSITORY, number, LABEL, "ben")
        shared.github.label(REPOSITORY, number, LABEL, "ana")
        await arrived()
        shared.github.comment(REPOSITORY, pull.number, "ben", "!write two.txt two\n!commit Two")
        assert "is preparing" in await status(shared, pull.number)
    second = await final(shared, number, 2)
    assert pull_of(shared, second) is pull and "Updated" in second.body
    diff = await diff_of(shared, second)
    assert "+work" in diff and "+more" in diff and "+two" in diff
    note = await told(shared, pull.number, "note:")
    assert "another thread" in note.body and f"/pull/{pull.number}" in note.body
    assert "Nothing is running here. acme/web · scripted · owner ana" in await status(shared, pull.number)
    assert len(said(shared, number, "final:")) == 2 and not said(shared, pull.number, "final:")


async def test_a_merge_is_heard_of_and_nothing_is_said_to_it(shared: Rig) -> None:
    number = labelled(shared, WORK.replace("work", "heard"))
    pull = pull_of(shared, await final(shared, number))
    w = Witness(shared)

    def closed() -> bool:
        rows = w.rows("SELECT closed_at FROM sessions WHERE pull_request = :number", number=pull.number)
        return [row["closed_at"] > 0 for row in rows] == [True]

    assert not closed()
    await shared.github.merge(REPOSITORY, pull.number, "ben")
    await until(closed)
    assert not said(shared, pull.number) and len(said(shared, number, "final:")) == 1


async def test_permitted_comments_steer_others_do_not_and_taking_the_label_off_stops(shared: Rig) -> None:
    number = labelled(shared, f"{at_gate('steer')}\n{WORK}")
    await shared.reached("steer")
    outsider = shared.github.comment(REPOSITORY, number, "eve", "!write eve.txt eve\n!commit Eve")
    shared.github.comment(REPOSITORY, number, "ben", f"{MORE}\n{at_gate('unlabel')}\n!write never.txt never")
    assert "is running" in await status(shared, number)
    shared.open_gate("steer")
    await shared.reached("unlabel")
    shared.github.unlabel(REPOSITORY, number, LABEL, "ben")
    stopped = await final(shared, number)
    assert "**Stopped.**" in stopped.body and "Stopped by ben" in stopped.body
    assert "Stopped after" in said(shared, number, "turn:")[0].body
    marks = next(one.reactions for one in shared.github.comments(REPOSITORY, number) if one.id == outsider)
    assert [mark.content for mark in marks] == ["confused"]

    shared.github.comment(REPOSITORY, number, "ana", f"@{shared.github.slug} publish")
    diff = await diff_of(shared, await final(shared, number, 2))
    assert "+work" in diff and "+more" in diff
    assert "eve" not in diff and "never" not in diff


async def test_a_label_in_a_repository_that_the_app_has_left_is_harmless(shared: Rig) -> None:
    await shared.github.add_repository("acme/left", {"README.md": "# left\n"})
    shared.github.add_user("ana", {"acme/left": "admin"})
    shared.github.webhook_url, address = NOBODY, shared.github.webhook_url
    assert address is not None
    there = shared.github.open_issue("acme/left", "ana", "Gone", WORK)
    shared.github.label("acme/left", there, LABEL, "ana")
    await shared.github_until(lambda: shared.github.deliveries[-1].action == "labeled")
    late = shared.github.deliveries[-1].body
    shared.github.uninstall("acme/left")
    shared.github.webhook_url = address
    async with httpx.AsyncClient(trust_env=False) as github:
        headers = shared.github.signed_headers("issues", late)
        assert (await github.post(address, content=late, headers=headers)).status_code == 202
        await shared.github_until(lambda: bool(shared.github.calls_to("GET", "acme/left/installation$")))
        assert (await github.get(shared.playground.health_url)).status_code == 200
    here = issue(shared, "Ask me")
    assert "no session" in await status(shared, here)
    assert not shared.github.comments("acme/left", there)
    assert not shared.github.pull_requests("acme/left")
    assert "Traceback" not in shared.log
