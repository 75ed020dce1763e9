"""The playground's page in a real browser, without the bot: what it draws, and that nothing breaks out."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import expect
from slack_sdk.web.async_client import AsyncWebClient

from handlers.playground.playground import Playground
from tests.e2e.browser import Visit, browser, needs_a_browser, visit

pytestmark = needs_a_browser

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
EVIL = (
    "<img src=x onerror=alert(1)> <script>alert(1)</script> &lt;b&gt; [x](javascript:alert(1)) "
    '<https://example.com/"onmouseover=alert(1)|here> <details><summary><img src=y></summary> `<i>`'
)


@pytest.fixture
async def playground(tmp_path: Path) -> AsyncIterator[Playground]:
    async with Playground(tmp_path / "github") as one:
        yield one


@pytest.fixture
async def page(playground: Playground) -> AsyncIterator[Visit]:
    async with browser() as launched, visit(launched, playground.url) as one:
        yield one


async def post_blocks(playground: Playground, text: str, blocks: list[dict[str, Any]]) -> None:
    client = AsyncWebClient(playground.slack.bot_token, base_url=playground.slack.api_url)
    client.proxy = None
    await client.chat_postMessage(channel="C_DEV", text=text, blocks=blocks)


async def test_words_of_others_stay_words(playground: Playground, page: Visit) -> None:
    slack, github = playground.slack, playground.github
    slack.post("U_EVE", "C_DEV", EVIL)
    await post_blocks(
        playground,
        EVIL,
        [
            {"type": "section", "text": {"type": "mrkdwn", "text": EVIL}},
            {"type": "markdown", "text": EVIL},
            {"type": "plan", "title": EVIL[:200], "tasks": [{"task_id": "1", "title": EVIL[:200]}]},
            {
                "type": "rich_text",
                "elements": [
                    {
                        "type": "rich_text_section",
                        "elements": [{"type": "link", "url": "javascript:alert(1)", "text": "here"}],
                    }
                ],
            },
        ],
    )
    github.open_issue("acme/web", "eve", EVIL[:200], EVIL)
    github.comment("acme/web", 3, "eve", EVIL)
    await expect(page.at("message")).to_have_count(2)
    await page.issue(3)
    await expect(page.at("comment")).to_have_count(2)
    await expect(page.at("comment").last).to_contain_text("onerror=alert(1)")
    for tag in ("img", "script:not([src])", "i", "b"):
        await expect(page.page.locator(f"main {tag}")).to_have_count(0)
    links = await page.page.locator("main a").evaluate_all("all => all.map(one => one.protocol)")
    assert set(links) <= {"http:", "https:"}
    inline = "all => all.flatMap(one => one.getAttributeNames()).filter(name => name.startsWith('on'))"
    assert await page.page.locator("body *").evaluate_all(inline) == []


async def test_shared_files_are_shown_and_can_be_saved(playground: Playground, page: Visit) -> None:
    client = AsyncWebClient(playground.slack.bot_token, base_url=playground.slack.api_url)
    client.proxy = None
    for name, data in (("shot.png", PNG), ("evil.svg", f"<svg><script>{EVIL}</script></svg>".encode())):
        await client.files_upload_v2(content=data, filename=name, channel="C_DEV", initial_comment="Look")
    await expect(page.at("file")).to_have_count(2)
    picture = page.at("file").first.locator("img")
    await expect(picture).to_have_js_property("naturalWidth", 1)
    await expect(page.at("file").last.locator("img")).to_have_count(0)
    await expect(page.at("file").first).to_contain_text(f"{len(PNG)} bytes")
    async with page.page.expect_download() as download:
        await page.at("save-file").last.click()
    assert (await download.value).suggested_filename == "evil.svg"


async def test_slacks_markup_is_drawn(playground: Playground, page: Visit) -> None:
    await post_blocks(
        playground,
        "fallback",
        [
            {"type": "header", "text": {"type": "plain_text", "text": "A header"}},
            {"type": "divider"},
            {
                "type": "section",
                "text": {
                    "type": "mrkdwn",
                    "text": "*bold* _slanted_ ~gone~ `a < b` <@U_ANA> :eyes: &lt;ok&gt;",
                },
            },
            {"type": "context", "elements": [{"type": "mrkdwn", "text": "<https://example.com|a link>"}]},
            {"type": "section", "text": {"type": "mrkdwn", "text": "```\nx = 1\n```\n&gt; quoted"}},
            {"type": "image", "image_url": "https://example.com/x.png", "alt_text": "x"},
        ],
    )
    said = page.at("message").last
    for tag, words in (
        ("h4", "A header"),
        ("strong", "bold"),
        ("em", "slanted"),
        ("s", "gone"),
        ("code", "a < b"),
        (".mention", "@Ana Alba"),
        ("pre", "x = 1"),
        ("blockquote", "quoted"),
    ):
        await expect(said.locator(tag).filter(has_text=words)).to_have_count(1)
    await expect(said).to_contain_text("👀")
    await expect(said).to_contain_text("<ok>")
    link = said.get_by_role("link", name="a link")
    await expect(link).to_have_attribute("href", "https://example.com/")
    await expect(link).to_have_attribute("rel", "noopener noreferrer")
    await expect(said).to_contain_text("does not draw blocks of the type “image”")


async def test_githubs_markdown_is_drawn(playground: Playground, page: Visit) -> None:
    body = (
        "## What\n\n- one **bold**\n  - nested `code`\n- [x] done\n\n1. first\n2. second\n\n"
        "```py\nif a < b:\n    # no heading\n```\n\n> quoted\n\nSee #1 and [docs](https://example.com).\\\n\n"
        "<details><summary>3 steps</summary>\n\n- ✅ hidden\n\n</details>\n\n"
        "<sub>small print</sub>\n<!-- unseen -->"
    )
    number = playground.github.open_issue("acme/web", "ana", "Markdown", body)
    await page.issue(number)
    drawn = page.at("comment").first
    for tag, count in (
        ("h4", 1),
        ("ul ul li", 1),
        ("ol li", 2),
        ("pre", 1),
        ("blockquote", 1),
        ("details", 1),
    ):
        await expect(drawn.locator(tag)).to_have_count(count)
    await expect(drawn.locator("pre")).to_have_text("if a < b:\n    # no heading")
    await expect(drawn.get_by_role("checkbox")).to_be_checked()
    await expect(drawn).not_to_contain_text("unseen")
    await expect(drawn.get_by_text("hidden")).not_to_be_visible()
    await drawn.get_by_text("3 steps").click()
    await expect(drawn.get_by_text("hidden")).to_be_visible()
    playground.github.comment("acme/web", number, "ben", "What was opened stays open")
    await expect(page.at("comment")).to_have_count(2)
    await expect(drawn.get_by_text("hidden")).to_be_visible()
    await drawn.get_by_role("link", name="#1").click()
    await expect(page.at("issue-title")).to_contain_text("greet() says hello to nobody")


async def test_everything_can_be_done_with_the_keyboard(playground: Playground, page: Visit) -> None:
    keyboard = page.page.keyboard
    await page.at("composer-channel").focus()
    await keyboard.type("first line")
    await keyboard.press("Shift+Enter")
    await keyboard.type("second line")
    await keyboard.press("Enter")
    await expect(page.at("message")).to_contain_text("first line")
    assert playground.slack.messages("C_DEV")[0].text == "first line\nsecond line"
    await expect(page.at("composer-channel")).to_have_value("")
    await page.at("open-thread").focus()
    await keyboard.press("Enter")
    await expect(page.at("composer-thread")).to_be_focused()
    await keyboard.type("half a reply")
    playground.slack.post("U_BEN", "C_DEV", "news", playground.slack.messages("C_DEV")[0].ts)
    await expect(page.thread.get_by_test_id("message")).to_have_count(2)
    await expect(page.at("composer-thread")).to_have_value("half a reply")
    await expect(page.at("composer-thread")).to_be_focused()
    await keyboard.press("Escape")
    await expect(page.thread).to_have_count(0)
    await page.at("speak-ana").focus()
    await keyboard.press("ArrowRight")
    await page.write("now as Ben")
    await expect(page.at("message").last).to_have_attribute("data-by", "ben")


async def test_news_are_read_out_and_other_channels_marked(playground: Playground, page: Visit) -> None:
    playground.slack.post("U_BEN", "C_DEV", "lunch?")
    await expect(page.page.locator("[aria-live=polite]")).to_have_text("Ben Bosch: lunch?")
    playground.slack.post("U_BEN", "C_RANDOM", "anybody?")
    await expect(page.at("channel-random").get_by_label("new messages")).to_be_visible()
    await page.at("channel-random").click()
    await expect(page.at("messages")).to_contain_text("anybody?")
    await expect(page.at("channel-random").get_by_label("new messages")).to_have_count(0)


async def test_addresses_lead_back_to_where_one_was(playground: Playground, page: Visit) -> None:
    root = playground.slack.post("U_ANA", "C_RANDOM", "here it began")
    await page.page.goto(playground.slack.permalink("C_RANDOM", root))
    await expect(page.thread).to_contain_text("here it began")
    await page.issue(2)
    await page.page.reload()
    await expect(page.at("issue-title")).to_contain_text("#2")
    await expect(page.thread).to_contain_text("here it began")
    await page.page.go_back()
    await expect(page.at("issue-1")).to_be_visible()


async def test_what_does_not_work_is_said(page: Visit) -> None:
    await page.write("/sandpiper help")
    await expect(page.at("toast")).to_contain_text("cannot be reached")
    await expect(page.at("composer-channel")).to_have_value("/sandpiper help")
