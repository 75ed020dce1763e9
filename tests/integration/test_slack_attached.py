"""Files from Slack: fetched with the token, which goes to Slack and to nobody else."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from slack_sdk.web.async_client import AsyncWebClient
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from bot.errors import FileRefused, SurfaceBusy, SurfaceError
from bot.models import Attachment
from bot.shared_files import LARGEST_FILE
from handlers.playground.server import LoopbackServer
from handlers.playground.slack import SlackPlayground
from handlers.playground.slack_app import SCOPES
from handlers.slack.attached import Attached, of_slack

API = "https://slack.com/api/"


@asynccontextmanager
async def attached(api_url: str, token: str) -> AsyncIterator[Attached]:
    async with aiohttp.ClientSession() as session:
        yield Attached(AsyncWebClient(token=token, base_url=api_url, session=session))


async def test_a_file_is_fetched_with_the_token(tmp_path: Path) -> None:
    async with SlackPlayground().served() as slack, attached(slack.api_url, slack.bot_token) as files:
        ts = slack.post("U_ANA", "C_DEV", "see", files={"a b.txt": b"hello"})
        [message] = [one for one in slack.messages("C_DEV") if one.ts == ts]
        await files.fetch(Attachment(message.files[0]["id"], "a b.txt"), tmp_path / "a")
        assert (tmp_path / "a").read_bytes() == b"hello"
        with pytest.raises(SurfaceError, match="file_not_found"):
            await files.fetch(Attachment("F404", "none"), tmp_path / "b")


async def test_an_app_that_may_not_read_files_says_which_scope_it_needs(tmp_path: Path) -> None:
    scopes = [scope for scope in SCOPES if scope != "files:read"]
    async with (
        SlackPlayground(scopes=scopes).served() as slack,
        attached(slack.api_url, slack.bot_token) as files,
    ):
        slack.post("U_ANA", "C_DEV", "see", files={"a.txt": b"hello"})
        with pytest.raises(SurfaceError, match="add the scope files:read"):
            await files.fetch(Attachment(slack.messages("C_DEV")[-1].files[0]["id"], "a.txt"), tmp_path / "a")


class Odd:
    """A Slack whose files are as `answer` says; `asked` has the tokens that it was shown."""

    def __init__(self, answer: Callable[[Request], Response], url: str = "") -> None:
        self.answer = answer
        self.file_url = url
        self.asked: list[str] = []
        self.app = Starlette(
            routes=[Route("/api/files.info", self._info, methods=["GET", "POST"]), Route("/file", self._file)]
        )

    async def _info(self, request: Request) -> Response:
        url = self.file_url or f"{request.base_url}file"
        return JSONResponse({"ok": True, "file": {"id": "F1", "url_private": url, "mimetype": "text/plain"}})

    async def _file(self, request: Request) -> Response:
        self.asked.append(request.headers.get("authorization", ""))
        return self.answer(request)


async def fetched(odd: Odd, to: Path) -> None:
    async with LoopbackServer(odd.app) as server, attached(f"{server.url}/api/", "xoxb-1") as files:
        await files.fetch(Attachment("F1", "a.txt"), to)


async def test_the_token_is_not_sent_to_strangers(tmp_path: Path) -> None:
    stranger = Odd(lambda _: Response(b"thanks"))
    async with LoopbackServer(stranger.app) as server:
        with pytest.raises(FileRefused, match="not kept by Slack"):
            await fetched(Odd(lambda _: Response(b""), f"{server.url}/file"), tmp_path / "a")
        with pytest.raises(FileRefused, match="not kept by Slack"):
            await fetched(Odd(lambda _: RedirectResponse(f"{server.url}/file")), tmp_path / "a")
    assert stranger.asked == [] and not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    ("answer", "error", "words"),
    [
        (lambda _: HTMLResponse("<title>Sign in</title>"), FileRefused, "files:read"),
        (lambda request: RedirectResponse(request.url), FileRefused, "does not give it out"),
        (lambda _: Response(bytes(LARGEST_FILE + 1), media_type="text/plain"), FileRefused, "larger than"),
        (lambda _: Response(status_code=403), FileRefused, "status 403"),
        (lambda _: Response(status_code=503), SurfaceBusy, "status 503"),
        (lambda _: Response(status_code=429, headers={"Retry-After": "7"}), SurfaceBusy, "limits the rate"),
    ],
)
async def test_what_slack_does_instead(
    tmp_path: Path, answer: Callable[[Request], Response], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        await fetched(Odd(answer), tmp_path / "a")


@pytest.mark.parametrize(
    ("url", "ours"),
    [
        ("https://files.slack.com/files-pri/T1-F1/a.txt", True),
        ("https://slack.com/x", True),
        ("https://files.slack-gov.com/x", True),
        ("http://files.slack.com/x", False),
        ("https://files.slack.com:8443/x", False),
        ("https://files.slack.com.evil.test/x", False),
        ("https://evilslack.com/x", False),
        ("https://files.slack.com@evil.test/x", False),
        ("https://[::1/x", False),
        ("", False),
    ],
)
def test_whose_host_it_is(url: str, ours: bool) -> None:
    assert of_slack(url, API) is ours
