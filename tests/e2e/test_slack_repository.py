"""Which repository a Slack thread means, where no default is set."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.e2e.rig import Rig, rig

pytestmark = pytest.mark.asyncio(loop_scope="module")

DOCS = "acme/docs"
HELLO = "!write hello.txt hello\n!commit Say hello"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Rig]:
    async with rig(tmp_path_factory.mktemp("rig"), SANDPIPER_DEFAULT_REPOSITORY="") as running:
        await running.github.add_repository(DOCS, {"README.md": "# docs\n"})
        yield running


async def test_the_message_can_name_it(shared: Rig) -> None:
    root = shared.mention(f"repo={DOCS} {HELLO}")
    final = await shared.final(root)
    assert shared.pull(final) in shared.github.pull_requests(DOCS)
    assert "+hello" in await shared.diff(final)


async def test_the_channel_can_have_one(shared: Rig) -> None:
    asked = shared.mention(f"channel repo={DOCS}", channel="C_RANDOM")
    await shared.slack_until(lambda: bool(shared.notes(asked, "C_RANDOM")))
    assert shared.notes(asked, "C_RANDOM") == [f"From now on, this channel means {DOCS}."]
    root = shared.mention(HELLO, channel="C_RANDOM", by="U_BEN")
    final = await shared.final(root, channel="C_RANDOM")
    assert shared.pull(final) in shared.github.pull_requests(DOCS)


async def test_where_none_is_known_a_reply_to_the_question_resumes_the_message(shared: Rig) -> None:
    root = shared.mention(HELLO)
    await shared.slack_until(lambda: bool(shared.notes(root)))
    assert "Which repository is meant?" in shared.notes(root)[0] and "<@U_ANA>" in shared.notes(root)[0]
    assert not shared.timelines(root)
    shared.reply(root, "acme/nowhere")
    await shared.slack_until(lambda: len(shared.notes(root)) == 2)
    assert "acme/nowhere" in shared.notes(root)[1] and "Which repository is meant?" in shared.notes(root)[1]
    shared.reply(root, DOCS)
    final = await shared.final(root)
    assert "+hello" in await shared.diff(final)
    assert shared.pull(final) in shared.github.pull_requests(DOCS)
