"""The demo, used by a person in a browser: the page, the simulators, the real bot, its sandboxes and git.

With SANDPIPER_SCREENSHOTS=docs/images the pictures of the documentation are taken on the way.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, expect

from handlers.playground.demo import run_demo
from tests.boxes import cannot_be_tested
from tests.e2e.browser import A_TURN, SCREENSHOTS, Visit, browser, needs_a_browser, visit

pytestmark = [
    needs_a_browser,
    pytest.mark.asyncio(loop_scope="module"),
]

PACE = "1.0" if SCREENSHOTS else "0.4"
MENTION = "example-channel-0"
STEER = "example-thread-0"


@pytest.fixture(scope="module", autouse=True)
def _bubblewrap() -> None:
    if shutil.which("bwrap") is None:
        cannot_be_tested("bubblewrap is not installed")


@pytest.fixture(scope="module")
def pace() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("SANDPIPER_AGENT_SCRIPTED_PACE", PACE)
        yield


@contextlib.asynccontextmanager
async def running(directory: Path) -> AsyncIterator[str]:
    """The demo, as `sandpiper demo` runs it; its address."""
    loop = asyncio.get_running_loop()
    welcomed: asyncio.Future[str] = loop.create_future()

    def say(words: str) -> None:
        print(words)
        found = re.search(r"Open (http://\S+)", words)
        if found and not welcomed.done():
            welcomed.set_result(found[1])

    demo = asyncio.create_task(run_demo(port=0, data_dir=directory, say=say))
    try:
        either: set[asyncio.Future[Any]] = {demo, welcomed}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if demo.done():
            demo.result()
        yield welcomed.result()
    finally:
        demo.cancel()
        await asyncio.wait([demo])


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def url(pace: None, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    directory = tmp_path_factory.mktemp("demo")
    async with running(directory) as address:
        yield address
    print(*(log.read_text(errors="replace")[-4000:] for log in directory.glob("*/bot.log")))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def launched(url: str) -> AsyncIterator[Browser]:
    async with browser() as one:
        yield one


@pytest_asyncio.fixture(loop_scope="module")
async def page(launched: Browser, url: str) -> AsyncIterator[Visit]:
    async with visit(launched, url) as one:
        yield one


async def at_work(page: Visit, *, steps: int = 1) -> None:
    """The open thread shows a turn that does something, after so many of the agent's steps."""
    done = page.thread.locator("[data-testid=task][data-status=complete]")
    await expect(done.nth(2 + steps)).to_be_visible(timeout=A_TURN)
    await expect(page.at("button-sandpiper_stop")).to_be_visible()


async def test_a_mention_is_steered_while_it_runs_and_becomes_a_pull_request(page: Visit) -> None:
    await page.at(MENTION).click()
    await at_work(page)
    await page.at(STEER).click()
    steer = page.thread.get_by_test_id("message").filter(has_text="also say it in German").last
    await expect(steer.get_by_test_id("reaction-white_check_mark")).to_be_visible(timeout=A_TURN)
    await expect(page.at("plan")).to_contain_text("Steered by")
    await expect(page.at("plan")).to_contain_text("Edit")
    await page.screenshot("demo-thread")
    await page.pull_request_of_the_thread()
    await expect(page.at("plan-title")).to_contain_text("Worked for")
    await expect(page.at("button-sandpiper_stop")).to_have_count(0)
    await expect(page.at("diff")).to_contain_text("+def farewell(")
    await expect(page.at("diff")).to_contain_text("Auf Wiedersehen")
    await page.screenshot("demo-pull-request")
    await page.at("merge").click()
    await expect(page.at("state")).to_have_text("Merged")
    await page.at("tab-commits").click()
    await expect(page.at("commits")).to_contain_text("Merge pull request")


async def test_a_slash_command_becomes_a_pull_request(page: Visit) -> None:
    await page.write("/sandpiper leave punctuation out of slugs")
    await expect(page.thread).to_contain_text("leave punctuation out of slugs")
    await page.pull_request_of_the_thread()
    await expect(page.at("diff")).to_contain_text("whats-new")


async def test_a_labelled_issue_is_steered_by_a_comment_and_becomes_a_pull_request(page: Visit) -> None:
    await page.issue(1)
    await page.at("label-sandpiper").click()
    bots = page.page.locator("[data-testid=comment][data-by='sandpiper[bot]']")
    await expect(bots.first).to_contain_text("reply here to steer", timeout=A_TURN)
    await page.speak_as("ben")
    await page.comment("also greet in French")
    await expect(bots.first).to_contain_text("Edited" if SCREENSHOTS else "✅", timeout=A_TURN)
    await page.page.emulate_media(color_scheme="dark")
    await page.screenshot("demo-issue")
    opened = bots.last.get_by_role("link", name=re.compile(r"^#\d+ "))
    await expect(opened).to_be_visible(timeout=A_TURN)
    await opened.click()
    await expect(page.at("issue-title")).not_to_contain_text("#1")
    await expect(page.at("diff")).to_contain_text("Hello!")
    await expect(page.at("diff")).to_contain_text("Bonjour")


async def test_stop_ends_a_turn(page: Visit) -> None:
    await page.write("@sandpiper !sleep 600")
    await expect(page.at("plan")).to_contain_text("Sleeping", timeout=A_TURN)
    await page.at("button-sandpiper_stop").click()
    await expect(page.at("plan-title")).to_contain_text("Stopped after", timeout=A_TURN)
    await expect(page.thread.get_by_test_id("message").last).to_contain_text("Stopped.")
    await expect(page.thread.locator("[data-status=in_progress]")).to_have_count(0)


async def test_a_killed_bot_comes_back_and_the_turn_goes_on(page: Visit) -> None:
    await page.write("@sandpiper greet visitors in Italian")
    await at_work(page)
    before = await page.at("bot-state").get_attribute("data-pid")
    await page.at("kill-bot").click()
    await expect(page.at("bot-state")).not_to_have_attribute("data-state", "running")
    await expect(page.at("bot-state")).to_have_attribute("data-state", "running", timeout=A_TURN)
    assert await page.at("bot-state").get_attribute("data-pid") != before
    await page.pull_request_of_the_thread()
    await expect(page.at("diff")).to_contain_text("Ciao")


async def test_who_is_not_permitted_starts_nothing(page: Visit) -> None:
    await page.speak_as("eve")
    await page.write("@sandpiper give me the keys")
    await expect(page.thread).to_contain_text("not on the list", timeout=A_TURN)
    await expect(page.at("plan")).to_have_count(0)
