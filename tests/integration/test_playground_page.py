"""The playground's page over HTTP: who may call it, what it may load, what it shows, what it does."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from handlers.playground.changes import Changes
from handlers.playground.github_demo import REPOSITORY
from handlers.playground.playground import Playground
from tests.integration.playground_bot import Bot, web_client

Json = dict[str, Any]


@pytest.fixture(autouse=True)
def without_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDK would send even loopback through a proxy of the environment."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
async def playground(tmp_path: Path) -> AsyncIterator[Playground]:
    async with Playground(tmp_path / "github") as one:
        yield one


@pytest.fixture
async def client(playground: Playground) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=playground.url, trust_env=False, timeout=10) as one:
        yield one


class Visitor:
    """Does what the page's script does when people use it."""

    def __init__(self, playground: Playground, client: httpx.AsyncClient) -> None:
        self.playground = playground
        self.client = client
        self.parts: Json = {}

    async def do(self, action: str, /, **fields: object) -> httpx.Response:
        headers = {"Origin": self.playground.url}
        return await self.client.post(f"/playground/do/{action}", json=fields, headers=headers)

    @contextlib.asynccontextmanager
    async def looking(self) -> AsyncIterator["Visitor"]:
        """Keep `parts` up to date while inside."""
        async with self.client.stream("GET", "/playground/events") as stream:
            assert stream.headers["content-type"].startswith("text/event-stream")
            self.news = self._read(stream)
            await self.sees(lambda: "workspace" in self.parts)
            yield self

    async def _read(self, stream: httpx.Response) -> AsyncIterator[None]:
        async for line in stream.aiter_lines():
            if line.startswith("data: "):
                told = json.loads(line.removeprefix("data: "))
                if told["first"]:
                    self.parts.clear()
                self.parts.update(told["set"])
                for name in told["gone"]:
                    del self.parts[name]
                yield

    async def sees(self, what: Callable[[], object]) -> None:
        async with asyncio.timeout(5):
            while not what():
                await anext(self.news)

    def messages(self) -> list[Json]:
        return [part for name, part in self.parts.items() if name.startswith("message/")]


@pytest.fixture
async def visitor(playground: Playground, client: httpx.AsyncClient) -> Visitor:
    return Visitor(playground, client)


# The page


@pytest.mark.parametrize(
    "path",
    ["/", "/acme/web", "/acme/web/issues/1", "/acme/web/pull/7", "/slack/archives/C_DEV/p1700000000000001"],
)
async def test_the_page_is_at_all_addresses_that_the_simulators_give_out(
    client: httpx.AsyncClient, path: str
) -> None:
    answer = await client.get(path)
    assert answer.status_code == 200
    assert "are simulated, on this machine only" in answer.text


async def test_the_page_loads_only_what_is_its_own(client: httpx.AsyncClient) -> None:
    answer = await client.get("/")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "frame-ancestors 'none'" in policy
    assert "<style" not in answer.text and "onclick" not in answer.text and "//" not in answer.text
    for name in (
        "app.js",
        "dom.js",
        "markup.js",
        "blocks.js",
        "slack.js",
        "github.js",
        "diff.js",
        "style.css",
    ):
        part = await client.get(f"/playground/static/{name}")
        assert part.status_code == 200 and "://" not in part.text.replace("http://", "").replace(
            "https://", ""
        )
        assert "innerHTML" not in part.text and "insertAdjacentHTML" not in part.text
    assert (await client.get("/playground/static/../page.py")).status_code == 404


async def test_the_simulators_are_on_the_same_port(playground: Playground, client: httpx.AsyncClient) -> None:
    assert (await client.post("/slack/api/auth.test")).json() == {"ok": False, "error": "not_authed"}
    assert (await client.get("/app")).status_code == 401
    refs = await client.get("/acme/web.git/info/refs?service=git-upload-pack")
    assert refs.headers["www-authenticate"] == 'Basic realm="GitHub"'
    assert playground.environment()["SANDPIPER_SLACK_API_URL"] == f"{playground.url}/slack/api/"


# Other sites in the same browser


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example:80", "10.0.0.1", ""])
async def test_a_host_name_that_is_not_ours_is_refused(client: httpx.AsyncClient, host: str) -> None:
    for path in ("/", "/playground/events", "/slack/api/auth.test", "/app"):
        assert (await client.get(path, headers={"Host": host})).status_code == 403


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]"])
async def test_loopback_by_any_name_is_welcome(
    playground: Playground, client: httpx.AsyncClient, host: str
) -> None:
    here = f"{host}:{playground.url.rpartition(':')[2]}"
    assert (await client.get("/", headers={"Host": here})).status_code == 200
    headers = {"Host": here, "Origin": f"http://{here}"}
    said = {"who": "ana", "channel": "C_DEV", "text": "hello"}
    assert (await client.post("/playground/do/post", json=said, headers=headers)).status_code == 200


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1:1", None])
async def test_another_site_can_do_nothing(
    playground: Playground, client: httpx.AsyncClient, origin: str | None
) -> None:
    said = {"who": "ana", "channel": "C_DEV", "text": "hello"}
    headers = {} if origin is None else {"Origin": origin}
    answer = await client.post("/playground/do/post", json=said, headers=headers)
    assert answer.status_code == 403
    assert playground.slack.messages("C_DEV") == []
    if origin is not None:
        assert (await client.post("/slack/api/auth.test", headers=headers)).status_code == 403


async def test_a_form_is_no_action(playground: Playground, client: httpx.AsyncClient) -> None:
    said = json.dumps({"who": "ana", "channel": "C_DEV", "text": "hello"})
    headers = {"Origin": playground.url, "Content-Type": "text/plain"}
    answer = await client.post("/playground/do/post", content=said, headers=headers)
    assert answer.status_code == 415


# What people do


async def test_what_people_write_is_seen_at_once(visitor: Visitor) -> None:
    async with visitor.looking():
        answer = await visitor.do("post", who="ana", channel="C_DEV", text="@sandpiper hello")
        root = answer.json()["ts"]
        await visitor.sees(lambda: [one["text"] for one in visitor.messages()] == ["<@U_BOT> hello"])
        await visitor.do("post", who="ben", channel="C_DEV", text="me too", thread=root)
        await visitor.sees(lambda: [one["thread_ts"] for one in visitor.messages()] == [None, root])
        visitor.playground.slack.delete("U_BEN", "C_DEV", visitor.messages()[1]["ts"])
        await visitor.sees(lambda: len(visitor.messages()) == 1)


async def test_only_what_changed_is_told(visitor: Visitor) -> None:
    async with visitor.looking():
        before = dict(visitor.parts)
        visitor.parts.clear()
        await visitor.do("post", who="ana", channel="C_DEV", text="hello")
        await visitor.sees(lambda: visitor.parts)
        assert visitor.parts.keys().isdisjoint(before)


async def test_buttons_and_commands_reach_the_bot_and_its_answers_the_page(visitor: Visitor) -> None:
    slack = visitor.playground.slack
    async with Bot(slack).connected() as bot, visitor.looking():
        button = {"type": "button", "action_id": "stop", "text": {"type": "plain_text", "text": "Stop"}}
        posted = await bot.app.client.chat_postMessage(
            channel="C_DEV", text="working", blocks=[{"type": "actions", "elements": [button]}]
        )
        pressed = {"channel": "C_DEV", "ts": posted["ts"], "action": "stop"}
        assert (await visitor.do("click", who="ben", **pressed)).status_code == 200
        await slack.wait_for(lambda: bot.clicks)
        assert bot.clicks[0]["user"]["id"] == "U_BEN"
        await visitor.do("slash", who="ana", channel="C_DEV", text="/sandpiper fix it")
        await visitor.sees(lambda: any(one["visible_to"] == "U_ANA" for one in visitor.messages()))
        assert bot.commands[0]["text"] == "fix it"


async def test_who_finds_no_bot_is_told_so(visitor: Visitor) -> None:
    answer = await visitor.do("slash", who="ana", channel="C_DEV", text="/sandpiper fix it")
    assert answer.status_code == 409 and "cannot be reached" in answer.json()["error"]
    answer = await visitor.do("slash", who="ana", channel="C_DEV", text="/remind me")
    assert answer.status_code == 409 and "not a command" in answer.json()["error"]


async def test_an_issue_from_its_opening_to_its_label(visitor: Visitor) -> None:
    github = visitor.playground.github
    async with visitor.looking():
        opened = await visitor.do("open-issue", who="eve", title="It is slow", body="Very.")
        number = opened.json()["number"]
        await visitor.do("label", who="ana", number=number, label="sandpiper")
        await visitor.do("comment", who="ben", number=number, body="Indeed")
        await visitor.sees(lambda: visitor.parts.get(f"issue/{number}", {}).get("comments"))
        issue = visitor.parts[f"issue/{number}"]
        assert (issue["by"], issue["labels"]) == ("eve", ["sandpiper"])
        assert [comment["body"] for comment in issue["comments"]] == ["Indeed"]
        await visitor.do("unlabel", who="ana", number=number, label="sandpiper")
        await visitor.do("close", who="ana", number=number)
        await visitor.sees(lambda: visitor.parts[f"issue/{number}"]["state"] == "closed")
        assert github.issue(REPOSITORY, number).labels == []


async def test_who_may_not_is_told_githubs_words(visitor: Visitor) -> None:
    answer = await visitor.do("label", who="eve", number=1, label="sandpiper")
    assert answer.status_code == 409 and "needs the role" in answer.json()["error"]
    answer = await visitor.do("comment", who="ana", number=99, body="hello")
    assert answer.status_code == 409


async def test_a_pull_request_is_shown_and_merged(visitor: Visitor) -> None:
    github, client = visitor.playground.github, visitor.client
    async with visitor.looking():
        await github.push_commit(REPOSITORY, "idea", {"web/greeting.py": "x = 1\n"}, "ben", "An idea")
        number = await github.open_pull_request(REPOSITORY, "ben", "idea", "My idea", "Fixes #1")
        await visitor.sees(lambda: f"issue/{number}" in visitor.parts)
        pull = (await client.get(f"/playground/pulls/{number}")).json()
        assert "+x = 1" in pull["diff"] and [one["message"] for one in pull["commits"]] == ["An idea"]
        before = visitor.parts["pushed"]
        assert (await visitor.do("merge", who="ana", number=number)).status_code == 200
        await visitor.sees(lambda: visitor.parts[f"issue/{number}"]["pull"]["merged_by"] == "ana")
        await visitor.sees(lambda: visitor.parts["pushed"] > before)
        assert visitor.parts["issue/1"]["state"] == "closed"
    commits = (await client.get("/playground/commits")).json()["commits"]
    assert commits[0]["message"].startswith("Merge pull request")
    merge = (await client.get(f"/playground/commits/{commits[0]['sha']}")).json()
    assert "+x = 1" in merge["diff"]
    assert (await client.get("/playground/commits/--help")).status_code == 404
    assert (await client.get("/playground/pulls/1")).status_code == 404


@pytest.mark.parametrize(
    ("action", "fields", "status"),
    [
        ("post", {"channel": "C_DEV"}, 422),
        ("post", {"channel": "C_DEV", "text": "  "}, 422),
        ("post", {"channel": "C_NONE", "text": "hello"}, 409),
        ("post", {"channel": ["C_DEV"], "text": "hello"}, 422),
        ("post", {"who": "nobody", "channel": "C_DEV", "text": "hello"}, 422),
        ("post", {"who": "sandpiper", "channel": "C_DEV", "text": "hello"}, 422),
        ("comment", {"number": "1", "body": "hello"}, 422),
        ("comment", {"who": "nobody", "number": 1, "body": "hello"}, 409),
        ("dance", {}, 404),
        ("kill-bot", {}, 409),
    ],
)
async def test_what_cannot_be_done_is_said(visitor: Visitor, action: str, fields: Json, status: int) -> None:
    answer = await visitor.do(action, **{"who": "ana", **fields})
    assert answer.status_code == status and answer.json()["error"]


async def test_a_body_that_is_no_json_or_too_large_is_refused(visitor: Visitor) -> None:
    headers = {"Origin": visitor.playground.url, "Content-Type": "application/json"}
    for body, status in ((b"{", 422), (b"[]", 422), (b'"' + b"x" * 300_000 + b'"', 413)):
        answer = await visitor.client.post("/playground/do/post", content=body, headers=headers)
        assert answer.status_code == status


# The bot's process


class Process:
    """The page's view of a process, without one."""

    def __init__(self) -> None:
        self.changes = Changes()
        self.state = "running"

    def view(self) -> Json:
        return {"state": self.state, "pid": 7, "restarts": 0, "trouble": ""}

    def kill(self) -> None:
        self.state = "waiting"
        self.changes.note("killed")


async def test_the_bot_can_be_killed_from_the_page(visitor: Visitor) -> None:
    visitor.playground.bot = Process()
    async with visitor.looking():
        assert visitor.parts["bot"]["state"] == "running"
        assert (await visitor.do("kill-bot")).status_code == 200
        await visitor.sees(lambda: visitor.parts["bot"]["state"] == "waiting")


# Files


async def test_a_shared_file_is_shown_and_served_so_that_it_can_do_nothing(
    playground: Playground, visitor: Visitor
) -> None:
    picture, page = b"\x89PNG\r\n\x1a\n" + bytes(40), b"<script>alert(1)</script>"
    async with visitor.looking():
        for name, data in (("shot.png", picture), ('x"\r\nSet-Cookie: a\u202e.html', page)):
            await web_client(playground.slack).files_upload_v2(content=data, filename=name, channel="C_DEV")
        await visitor.sees(lambda: len(visitor.messages()) == 2)
        shot, html = (one["files"][0] for one in visitor.messages())
    assert (shot["name"], shot["size"], shot["picture"]) == ("shot.png", len(picture), True)
    for file, kind, shown in (
        (shot, "image/png", "inline"),
        (html, "application/octet-stream", "attachment"),
    ):
        answer = await visitor.client.get(f"/playground/files/{file['id']}")
        assert answer.headers["content-type"] == kind
        assert answer.headers["content-disposition"].startswith(f"{shown}; filename*=UTF-8''")
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert "set-cookie" not in answer.headers
        saved = await visitor.client.get(f"/playground/files/{file['id']}?save")
        assert saved.headers["content-disposition"].startswith("attachment")
    assert (await visitor.client.get("/playground/files/FNONE")).status_code == 404
