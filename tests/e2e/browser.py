"""A real browser on the playground's page, in the words of who uses it."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from playwright.async_api import Browser, ConsoleMessage, Locator, Page, async_playwright, expect

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ARGUMENTS = (
    "--no-sandbox",  # a container's user is often root, for whom Chromium has no sandbox
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
SCREENSHOTS = os.environ.get("SANDPIPER_SCREENSHOTS", "")
A_TURN = 60_000.0  # milliseconds

# CI installs it, so there a missing browser is a failure.
REQUIRED = os.environ.get("SANDPIPER_TEST_BROWSER") == "required"
needs_a_browser = pytest.mark.skipif(
    CHROMIUM is None and not REQUIRED, reason="Chromium is not installed (apt install chromium)"
)


@asynccontextmanager
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        launched = await playwright.chromium.launch(executable_path=CHROMIUM, args=list(ARGUMENTS))
        try:
            yield launched
        finally:
            await launched.close()


@asynccontextmanager
async def visit(launched: Browser, url: str) -> AsyncIterator[Visit]:
    """A tab of its own. Fails at the end if the page's script failed or loaded what it may not."""
    context = await launched.new_context(
        viewport={"width": 1280, "height": 800}, device_scale_factor=1.5 if SCREENSHOTS else 1
    )
    page = await context.new_page()
    one = Visit(page)
    try:
        await page.goto(url)
        await expect(page.get_by_test_id("messages")).to_be_visible()
        yield one
        assert not one.errors
    finally:
        await context.close()


class Visit:
    def __init__(self, page: Page) -> None:
        self.page = page
        self.errors: list[str] = []
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", self._hear)

    def _hear(self, message: ConsoleMessage) -> None:
        # What the server refuses on purpose is written to the console by the browser itself.
        if message.type == "error" and "the server responded with a status of 4" not in message.text:
            self.errors.append(message.text)

    def at(self, test_id: str) -> Locator:
        return self.page.get_by_test_id(test_id)

    @property
    def thread(self) -> Locator:
        return self.at("thread")

    async def speak_as(self, login: str) -> None:
        await self.at(f"speak-{login}").check(force=True)

    async def write(self, text: str) -> None:
        """In the channel, as people do: typed, then Enter."""
        await self._type("composer-channel", text)

    async def reply(self, text: str) -> None:
        await self._type("composer-thread", text)

    async def comment(self, text: str) -> None:
        await self._type("comment-text", text)

    async def _type(self, test_id: str, text: str) -> None:
        await self.at(test_id).fill(text)
        await self.at(test_id).press("Enter")

    async def pull_request_of_the_thread(self) -> None:
        """Wait for the newest final of the open thread, and open its pull request."""
        card = self.thread.get_by_test_id("card").last
        await expect(card).to_be_visible(timeout=A_TURN)
        await card.get_by_text("Open PR").click()
        await expect(self.at("diff")).to_be_visible()

    async def issue(self, number: int) -> None:
        await self.at("tab-issues").click()
        await self.at(f"issue-{number}").click()
        await expect(self.at("issue-title")).to_contain_text(f"#{number}")

    async def screenshot(self, name: str) -> None:
        """Into the directory that SANDPIPER_SCREENSHOTS names, if it names one."""
        if SCREENSHOTS:
            await self.page.mouse.move(640, 790)
            path = Path(SCREENSHOTS) / f"{name}.png"
            await self.page.screenshot(path=path, animations="disabled")
