"""From a Slack thread to a pull request, through the real Bolt, slack-sdk, PyGithub, git and bubblewrap."""

from __future__ import annotations

import pytest

from handlers.playground.slack_state import Channel
from tests.e2e.rig import REPOSITORY, Rig, at_gate

pytestmark = pytest.mark.asyncio(loop_scope="module")

HELLO = "!write hello.txt hello\n!commit Say hello\n!answer I said hello."
IDLE = "Nothing is running here."


async def test_a_mention_becomes_a_pull_request(shared: Rig) -> None:
    root = shared.mention(HELLO)
    final = await shared.final(root)
    assert "<@U_ANA>" in final.text and "I said hello." in final.text
    assert "+hello" in await shared.diff(final)
    pull = shared.pull(final)
    assert pull.title == "Say hello" and pull.state == "open"
    assert shared.slack.permalink("C_DEV", root) in (pull.body or "")
    assert "Worked for" in shared.picture(root)
    assert shared.reactions(root) == {"white_check_mark"}


async def test_what_is_delivered_twice_is_one_turn(shared: Rig) -> None:
    shared.slack.deliver_twice(2)  # its `message` and its `app_mention`
    root = shared.mention(HELLO)
    await shared.final(root)
    assert IDLE in await shared.status(root)
    assert len(shared.finals(root)) == len(shared.timelines(root)) == 1


@pytest.mark.parametrize("mention_first", [False, True])
async def test_message_and_app_mention_are_one_turn(shared: Rig, mention_first: bool) -> None:
    shared.slack.mention_first = mention_first
    root = shared.mention("!answer once")
    kinds = [delivery.payload["event"]["type"] for delivery in shared.slack.deliveries][-2:]
    await shared.final(root)
    assert kinds == (["app_mention", "message"] if mention_first else ["message", "app_mention"])
    assert IDLE in await shared.status(root)
    assert len(shared.finals(root)) == len(shared.timelines(root)) == 1


async def test_two_threads_of_one_person_work_side_by_side_in_one_sandbox(shared: Rig) -> None:
    where = "!run pwd > where.txt"
    one = shared.mention(f"!run echo one > ~/mark\n{where}\n{at_gate('one')}\n!commit One")
    await shared.reached("one")
    prune = "!run git worktree prune"  # the first one's worktree looks gone from here
    two = shared.mention(f"{prune}\n!run cat ~/mark > mark.txt\n{where}\n{at_gate('two')}\n!commit Two")
    await shared.reached("two")
    assert "is running" in await shared.status(one) and "is running" in await shared.status(two)
    shared.open_gate("one")
    shared.open_gate("two")
    first, second = await shared.final(one), await shared.final(two)
    assert shared.pull(first).number != shared.pull(second).number
    diffs = [await shared.diff(first), await shared.diff(second)]
    places = [next(line for line in diff.splitlines() if line.startswith("+/")) for diff in diffs]
    assert places[0] != places[1]
    assert "+one" in diffs[1]  # the second saw what the first left in its home
    assert "mark.txt" not in diffs[0]


async def test_a_follow_up_updates_the_same_pull_request(shared: Rig) -> None:
    root = shared.mention(HELLO)
    first = await shared.final(root)
    branch = shared.branch(first)
    shared.reply(root, "!write bye.txt bye\n!commit Say bye\n!answer Also bye.")
    second = await shared.final(root, 2)
    assert shared.pull(second).number == shared.pull(first).number
    assert shared.branch(second) == branch
    diff = await shared.diff(second)
    assert "+hello" in diff and "+bye" in diff
    assert "updated" in second.text


async def test_a_turn_that_changed_nothing_is_an_answer(shared: Rig) -> None:
    before = len(shared.github.pull_requests(REPOSITORY))
    root = shared.mention("!read README.md\n!answer It has two functions.")
    final = await shared.final(root)
    assert "It has two functions." in final.shown
    assert "/pull/" not in str(final.blocks)
    assert len(shared.github.pull_requests(REPOSITORY)) == before


async def test_a_direct_message_starts_work_without_a_mention(shared: Rig) -> None:
    direct = shared.slack.direct_channel("U_ANA")
    root = shared.slack.post("U_ANA", direct, HELLO)
    final = await shared.final(root, channel=direct)
    assert "+hello" in await shared.diff(final)


async def test_a_slash_command_opens_a_thread_and_works_in_it(shared: Rig) -> None:
    before = {post.ts for post in shared.slack.messages("C_DEV")}
    commit = "git add -A && git commit -qm Slashed"
    await shared.slack.slash("U_ANA", "C_DEV", "/sandpiper", f"!run echo slash > slash.txt && {commit}")

    def opened() -> str:
        found = [post for post in shared.slack.messages("C_DEV") if post.ts not in before]
        return found[0].ts if found else ""

    await shared.slack_until(lambda: bool(opened()))
    root = opened()
    assert "<@U_ANA>" in shared.slack.message("C_DEV", root).text
    final = await shared.final(root)
    assert "+slash" in await shared.diff(final)
    shared.reply(root, "!answer Heard in the thread.")
    assert "Heard in the thread." in (await shared.final(root, 2)).shown


@pytest.mark.parametrize(
    ("asked", "told"),
    [("help", "Mention me with a task"), ("status", "Nothing of yours is running in this channel")],
)
async def test_a_slash_command_is_answered_to_its_author_alone(shared: Rig, asked: str, told: str) -> None:
    posts = len(shared.slack.messages("C_DEV"))
    seen = len(shared.slack.ephemerals("U_BEN"))
    await shared.slack.slash("U_BEN", "C_DEV", "/sandpiper", asked)
    await shared.slack_until(lambda: len(shared.slack.ephemerals("U_BEN")) > seen)
    assert told in shared.slack.ephemerals("U_BEN")[-1].shown
    assert len(shared.slack.messages("C_DEV")) == posts


async def test_a_slash_command_in_a_private_channel_without_the_bot_is_told_to_invite_it(shared: Rig) -> None:
    shared.slack.workspace.channels["C_SECRET"] = Channel("C_SECRET", "secret", ["U_ANA"], kind="group")
    await shared.slack.slash("U_ANA", "C_SECRET", "/sandpiper", "Fix the loop")

    def told() -> str:
        return "".join(post.shown for post in shared.slack.ephemerals("U_ANA") if post.channel == "C_SECRET")

    await shared.slack_until(lambda: bool(told()))
    assert "I am not in this channel. Invite me to the channel with /invite" in told()
    assert "organisation" not in told()


async def test_who_may_not_gets_a_clear_answer_and_nothing_runs(shared: Rig) -> None:
    root = shared.mention(HELLO, by="U_EVE")
    await shared.slack_until(lambda: bool(shared.notes(root)))
    (note,) = shared.notes(root)
    assert "eve is not on the list of people I work for" in note
    assert "SANDPIPER_ALLOW_PEOPLE" in note
    assert not shared.timelines(root) and not shared.finals(root)


async def test_a_reply_that_overtakes_its_root_is_not_lost(shared: Rig) -> None:
    with shared.slack.newest_first():
        root = shared.mention("!write root.txt root\n!commit Root")
        reply = shared.reply(root, "!write reply.txt reply\n!commit Reply")
    final = await shared.final(root)
    if "+reply" not in await shared.diff(final):  # it came too late for the first turn
        final = await shared.final(root, 2)
    diff = await shared.diff(final)
    assert "+root" in diff and "+reply" in diff
    assert shared.reactions(reply) == {"white_check_mark"}
