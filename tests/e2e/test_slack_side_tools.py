"""What an agent does with its side tools, as people see it in a Slack thread."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio

from handlers.playground.slack_state import Message
from tests.e2e.rig import Rig, at_gate, marker, rig

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def it(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Rig]:
    directory = tmp_path_factory.mktemp("rig")
    async with rig(directory, SANDPIPER_SANDBOX_PORTS_HOST="127.0.0.1") as running:
        yield running


def tool(name: str, **arguments: object) -> str:
    return f"!tool {name} {json.dumps(arguments)}"


def files(it: Rig, root: str) -> list[Message]:
    return [post for post in it.thread(root) if post.files]


async def test_it_names_its_work_and_says_where_it_is(it: Rig) -> None:
    root = it.mention(
        "\n".join(
            [
                tool("note_progress", text="Half way there"),
                tool("set_title", title="A first idea"),
                "!write clock.txt tick",
                "!commit Touch the clock",
                tool("open_pr", title="Mend the clock", body="It was *slow*.\n\n- now it is not"),
                "!answer Mended.",
            ]
        )
    )
    final = await it.final(root)
    pull = it.pull(final)
    assert pull.title == "Mend the clock"
    assert pull.body and pull.body.startswith("It was *slow*.\n\n- now it is not\n")
    assert "Mended." not in pull.body and "Mended." in final.shown
    picture = it.picture(root)
    assert "Half way there" in picture and "Named it: Mend the clock" in picture
    assert "note_progress" not in picture and "mcp_call" not in picture


async def test_a_later_turn_has_words_of_its_own(it: Rig) -> None:
    first = tool("open_pr", title="One", body="The first half.")
    root = it.mention(f"!write one.txt 1\n!commit One\n{first}\n!answer Done with one.")
    pull = it.pull(await it.final(root))
    it.reply(root, "!write two.txt 2\n!commit Two\n!answer Done with two.")
    await it.final(root, 2)
    assert pull.title == "One"
    assert pull.body and pull.body.count("The first half.") == 1 and "Done with two." in pull.body


async def test_a_question_is_answered_in_the_thread(it: Rig) -> None:
    root = it.mention(tool("ask_person", question="Which colour?", options=["Red", "Blue"]))
    await it.slack_until(lambda: any(marker(post).startswith("ask:") for post in it.thread(root)))
    it.reply(root, "Green, please")
    assert "ask_person: Green, please" in (await it.final(root)).shown


async def test_a_file_appears_in_the_thread(it: Rig) -> None:
    share = tool("share_file", path="report.txt", title="What I measured")
    root = it.mention(f"!run printf 'all is well' > report.txt; rm -f x\n{share}\n!run rm report.txt")
    final = await it.final(root)
    assert "It is on its way into the thread" in final.shown
    await it.slack_until(lambda: bool(files(it, root)))
    [post] = files(it, root)
    [file] = post.files
    known = it.slack.file(str(file["id"]))
    assert known is not None and known.data == b"all is well"
    assert (file["name"], file["title"]) == ("report.txt", "What I measured")
    assert "Sharing report.txt" in it.picture(root)
    home = next(it._homes("*/workspaces/*/.sandpiper/shared"))
    assert list(home.iterdir()) == [], "its copy lies in the sandbox"


async def test_what_people_attach_is_there_for_the_agent(it: Rig) -> None:
    root = it.mention(
        "!run cp ../.sandpiper/attached/*/1-notes.txt notes.txt\n!commit Notes\n!answer Read.",
        files={"notes.txt": b"from Ana"},
    )
    assert "+from Ana" in await it.diff(await it.final(root))


async def test_a_person_gets_a_file_of_the_workspace(it: Rig) -> None:
    first = it.mention("!run printf secret > private.txt\n!answer Yes")
    await it.final(first)
    root = it.mention("!run printf hello > ours.txt\n!answer Yes")
    await it.final(root)
    it.reply(root, "get ours.txt")
    await it.slack_until(lambda: bool(files(it, root)))
    known = it.slack.file(str(files(it, root)[0].files[0]["id"]))
    assert known is not None and known.data == b"hello"
    [theirs] = it._homes("*/workspaces/*/code/private.txt")
    it.reply(root, f"get ../../{theirs.parent.parent.name}/code/private.txt")
    await it.slack_until(lambda: any("no such file" in note for note in it.notes(root)))
    assert len(files(it, root)) == 1


async def test_what_cannot_be_shared_is_said_to_the_agent(it: Rig) -> None:
    share = tool("share_file", path="/etc/shadow")
    root = it.mention(f"{share}\n{tool('share_file', path='no/such/file')}")
    final = await it.final(root)
    assert final.shown.count("Not shared: ") == 2
    assert files(it, root) == []


async def test_a_call_to_a_dead_bot_is_answered_by_the_next_one_once(it: Rig) -> None:
    share = tool("share_file", path="report.txt")
    root = it.mention(f"!run echo kept > report.txt\n{at_gate('share')}\n{share}\n!run rm report.txt")
    await it.reached("share")
    await it.kill()
    it.open_gate("share")
    await it.start_again()
    assert "It is on its way into the thread" in (await it.final(root)).shown
    await it.slack_until(lambda: bool(files(it, root)))
    await it.status(root)
    assert len(files(it, root)) == 1


async def test_a_server_can_be_looked_at_while_the_turn_runs(it: Rig) -> None:
    up = "import socket; socket.create_connection(('127.0.0.1', 8765))"
    serve = (
        "!run python3 -m http.server 8765 --bind 127.0.0.1 >~/log 2>&1 & "
        f'until python3 -c "{up}" 2>>~/log; do sleep 0.1; done; echo up'
    )
    share = tool("share_port", port=8765, title="The <site>")
    root = it.mention(
        f"!run echo 'hello people' > page.txt; {serve.removeprefix('!run ')}\n{share}\n{at_gate('port')}"
        "\n!run rm page.txt"
    )
    await it.reached("port")
    await it.slack_until(lambda: any("http://127.0.0.1:" in note for note in it.notes(root)))
    [note] = [note for note in it.notes(root) if "http://127.0.0.1:" in note]
    assert "The &lt;site&gt;" in note
    url = re.findall(r"http://127\.0\.0\.1:\d+/", note)[0]
    async with httpx.AsyncClient(trust_env=False) as client:
        assert (await client.get(f"{url}page.txt")).text == "hello people\n"
        it.open_gate("port")
        await it.final(root)
        with pytest.raises(httpx.TransportError):
            await client.get(f"{url}page.txt")
