"""Files that people attach, fetched from Slack with the bot's token (docs.slack.dev, "File object").

The token goes to Slack's own hosts and nowhere else. Where it may not read files, Slack answers with a page
to log in on, and status 200.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urljoin, urlsplit

import aiohttp
from slack_sdk.web.async_client import AsyncWebClient

from bot.errors import FileRefused, SurfaceBusy
from bot.models import Attachment
from bot.shared_files import LARGEST_FILE, size_words
from handlers.slack.web import RETRY_AFTER, Json, answered, busy

HOSTS = (".slack.com", ".slack-gov.com")
REQUESTS = 3  # with redirects
CHUNK = 1 << 16
DOWNLOAD = aiohttp.ClientTimeout(total=120.0)  # seconds
MEND = "An operator has to add the scope files:read to the Slack app and install it again."


class Attached:
    def __init__(self, client: AsyncWebClient) -> None:
        self._client = client

    async def fetch(self, file: Attachment, to: Path) -> None:
        """Raises SurfaceBusy, SlackRefused, FileRefused, OSError."""
        found: Json = (await answered(self._client.files_info(file=file.id))).get("file") or {}
        url = str(found.get("url_private_download") or found.get("url_private") or "")
        is_page = "html" in str(found.get("mimetype") or "")
        try:
            await self._download(url, to, is_page=is_page)
        except (aiohttp.ClientError, TimeoutError) as error:
            raise SurfaceBusy(f"Slack cannot be reached ({type(error).__name__}).", RETRY_AFTER) from error

    async def _download(self, url: str, to: Path, *, is_page: bool) -> None:
        client, session = self._client, self._client.session
        assert session is not None  # noqa: S101  # ours, from the start
        for _ in range(REQUESTS):
            if not of_slack(url, client.base_url):
                raise FileRefused("It is not kept by Slack itself.", "Attach the file, not a link to it.")
            async with session.get(
                url,
                headers={"Authorization": f"Bearer {client.token}"},
                allow_redirects=False,
                proxy=client.proxy,
                ssl=client.ssl or True,
                timeout=DOWNLOAD,
            ) as answer:
                if answer.status in (301, 302, 303, 307, 308):
                    url = urljoin(url, answer.headers.get("Location", ""))
                    continue
                if answer.status == 429:
                    raise busy(answer.headers)
                if answer.status >= 500:
                    raise SurfaceBusy(f"Slack does not give out files (status {answer.status}).", RETRY_AFTER)
                if answer.status != 200:
                    raise FileRefused(f"Slack does not give it out (status {answer.status}).")
                if answer.content_type == "text/html" and not is_page:
                    raise FileRefused("Slack does not let me read files.", MEND)
                await _store(answer, to)
                return
        raise FileRefused("Slack does not give it out.", MEND)


async def _store(answer: aiohttp.ClientResponse, to: Path) -> None:
    size = 0
    with to.open("wb") as file:
        async for chunk in answer.content.iter_chunked(CHUNK):
            size += len(chunk)
            if size > LARGEST_FILE:
                raise FileRefused(f"It is larger than {size_words(LARGEST_FILE)}.")
            file.write(chunk)


def of_slack(url: str, api: str) -> bool:
    """May the token be sent there? api: where Slack's own API is, for whoever runs a proxy of it."""
    try:
        parts, ours = urlsplit(url), urlsplit(api)
        if (parts.scheme, parts.netloc) == (ours.scheme, ours.netloc):
            return True
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return False
    return parts.scheme == "https" and port in (None, 443) and f".{host}".endswith(HOSTS)
