"""What people choose in a Slack thread: checked against what the agent itself listed, in a real box."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from handlers.slack.ids import APPROVE_ACTION
from tests.e2e.rig import DEV, Rig, marker, rig

pytestmark = pytest.mark.asyncio(loop_scope="module")

# An agent that speaks ACP, has two models, and only says which one it was set to.
LISTER = """#!/usr/bin/env python3
import json, sys

if sys.argv[1:] == ["--version"]:
    sys.exit(print("lister 1.0"))
model = "small"
for line in sys.stdin:
    asked = json.loads(line)
    method, params, result = asked.get("method"), asked.get("params", {}), {}
    if method == "initialize":
        result = {"protocolVersion": 1, "agentInfo": {"name": "lister", "version": "1.0"}}
    elif method == "session/new":
        models = [{"modelId": "small"}, {"modelId": "large"}]
        result = {"sessionId": "s", "models": {"currentModelId": model, "availableModels": models}}
    elif method == "session/set_model":
        model = params["modelId"]
    elif method == "session/prompt":
        said = {"sessionUpdate": "agent_message_chunk", "content": {"type": "text", "text": "I am " + model}}
        told = {"method": "session/update", "params": {"sessionId": "s", "update": said}}
        print(json.dumps({"jsonrpc": "2.0", **told}), flush=True)
        result = {"stopReason": "end_turn"}
    if "id" in asked:
        print(json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": result}), flush=True)
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def choosy(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Rig]:
    tools: Path = tmp_path_factory.mktemp("tools")
    program = tools / "lister"
    program.write_text(LISTER)
    program.chmod(0o755)
    agents = {
        "lister": {"command": [str(program)], "version": "1.0"},
        "claude": {"models": ["opus", "sonnet"]},
    }
    settings = {"SANDPIPER_AGENTS": json.dumps(agents), "SANDPIPER_SANDBOX_TOOLS": str(tools)}
    async with rig(tmp_path_factory.mktemp("rig"), **settings, SANDPIPER_PERMISSIONS="plan") as running:
        yield running


async def told(it: Rig, root: str, words: str) -> None:
    await it.slack_until(lambda: any(words in note for note in it.notes(root)))


async def test_a_model_that_the_agent_did_not_list_is_refused_in_the_thread(choosy: Rig) -> None:
    root = choosy.mention("agent=lister who are you?")
    assert "I am small" in (await choosy.final(root)).shown
    choosy.reply(root, "model=lagre and now?")
    await told(choosy, root, "lister has no model 'lagre'. Did you mean `large`? There is: small, large.")
    other = choosy.mention("agent=lister model=lagre who are you?")
    await told(choosy, other, "lister has no model 'lagre'.")
    assert not choosy.timelines(other) and len(choosy.timelines(root)) == 1
    assert "Models of lister: small, large" in await choosy.status(root)
    choosy.reply(root, "model=large and now?")
    assert "I am large" in (await choosy.final(root, 2)).shown


async def test_what_settings_name_is_known_from_the_start(choosy: Rig) -> None:
    root = choosy.mention("agent=claude model=sonet fix it")
    await told(choosy, root, "claude has no model 'sonet'. Did you mean `sonnet`?")
    assert not choosy.timelines(root)


async def test_nobody_gets_less_care_than_the_setting(choosy: Rig) -> None:
    root = choosy.mention("permissions=auto !write x.txt x")
    await told(choosy, root, "less careful than SANDPIPER_PERMISSIONS, which is 'plan' here.")
    assert not choosy.timelines(root)


async def test_more_care_than_the_setting_is_for_the_whole_session(choosy: Rig) -> None:
    root = choosy.mention("permissions=ask !run echo one > one.txt\n!commit One")

    def asked() -> list[str]:
        return [post.ts for post in choosy.thread(root) if marker(post).startswith("ask:")]

    for number in (1, 2):
        await choosy.slack_until(lambda number=number: len(asked()) == number)  # type: ignore[misc]
        await choosy.slack.click("U_ANA", DEV, asked()[-1], APPROVE_ACTION)
        final = await choosy.final(root, number)
        choosy.reply(root, "!run echo two > two.txt\n!commit Two")
        if number == 1:
            assert "+one" in await choosy.diff(final)
    assert "permissions ask" in await choosy.status(root)
