"""The playground's Slack takes as much as Slack takes, as often, and refuses the rest by Slack's errors."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from slack_sdk.errors import SlackApiError
from slack_sdk.http_retry.builtin_async_handlers import AsyncRateLimitErrorRetryHandler

from handlers.playground.slack import SlackPlayground
from handlers.playground.slack_blocks import check_blocks
from handlers.playground.slack_limits import DEFAULT_RATES, NO_RATES, Rate, RateLimiter
from handlers.playground.slack_state import SlackError
from tests.integration.playground_bot import web_client

Json = dict[str, Any]


@pytest.fixture
async def slack(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[SlackPlayground]:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    async with SlackPlayground(rates=NO_RATES).served() as playground:
        yield playground


async def refused(call: Any) -> Json:
    with pytest.raises(SlackApiError) as error:
        await call
    body: Json = error.value.response.data
    return body


def plain(text: str) -> Json:
    return {"type": "plain_text", "text": text}


def mrkdwn(text: str) -> Json:
    return {"type": "mrkdwn", "text": text}


def rich(text: str) -> Json:
    section = {"type": "rich_text_section", "elements": [{"type": "text", "text": text}]}
    return {"type": "rich_text", "elements": [section]}


def button(**more: Any) -> Json:
    return {"type": "button", "action_id": "stop", "text": plain("Stop")} | more


def task(number: int = 1, **more: Any) -> Json:
    return {"task_id": f"t{number}", "title": "Read 6 files", "status": "complete"} | more


def plan(*tasks: Json, title: str = "Running tests") -> Json:
    return {"type": "plan", "title": title, "tasks": list(tasks)}


def section(text: str) -> Json:
    return {"type": "section", "text": mrkdwn(text)}


def actions(*elements: Json) -> Json:
    return {"type": "actions", "elements": list(elements)}


def feedback(value: str = "1") -> Json:
    return {
        "type": "feedback_buttons",
        "action_id": "feedback",
        "positive_button": {"text": plain("Good"), "value": value},
        "negative_button": {"text": plain("Bad"), "value": "0"},
    }


TAKEN: list[Json] = [
    section("x" * 3000),
    {"type": "section", "fields": [mrkdwn("x" * 2000)] * 10, "accessory": button()},
    {"type": "header", "text": plain("x" * 150)},
    {"type": "divider"},
    {"type": "context", "elements": [mrkdwn("acme/web@main"), plain("run 7f3")]},
    {"type": "context_actions", "elements": [feedback()]},
    {"type": "markdown", "text": "x" * 12_000},
    {"type": "alert", "text": mrkdwn("careful"), "level": "warning"},
    {
        "type": "card",
        "title": mrkdwn("x" * 150),
        "subtitle": mrkdwn("x" * 150),
        "body": mrkdwn("x" * 200),
        "actions": [button(url="https://acme.example")],
    },
    {"type": "image", "image_url": "https://acme.example/a.png", "alt_text": "a"},
    rich("hello"),
    {
        "type": "rich_text",
        "elements": [
            {
                "type": "rich_text_list",
                "style": "bullet",
                "elements": [
                    {"type": "rich_text_section", "elements": [{"type": "user", "user_id": "U_ANA"}]}
                ],
            },
            {"type": "rich_text_preformatted", "elements": [{"type": "text", "text": "$ make"}]},
            {
                "type": "rich_text_quote",
                "elements": [{"type": "link", "url": "https://acme.example", "style": {"bold": True}}],
            },
        ],
    },
    plan(*(task(number) for number in range(50)), title="x" * 256),
    plan(
        task(
            title="x" * 256,
            details=rich("x" * 256),
            output=rich("x" * 256),
            sources=[{"type": "url", "url": "https://acme.example", "text": "acme"}],
        )
    ),
    {"type": "task_card"} | task(status="in_progress"),
    actions(*(button(action_id=f"b{number}") for number in range(25))),
    actions(button(text=plain("x" * 75), value="x" * 2000, style="danger")),
]

REFUSED: list[tuple[Json, str]] = [
    (section("x" * 3001), "must be less than 3001 characters [json-pointer:/blocks/0/text/text]"),
    (section(""), "must be more than 0 characters [json-pointer:/blocks/0/text/text]"),
    ({"type": "section"}, "must define either `text` or `fields` [json-pointer:/blocks/0]"),
    ({"type": "section", "text": "bare"}, "must be an object [json-pointer:/blocks/0/text]"),
    (
        {"type": "section", "text": mrkdwn("x"), "txt": "x"},
        "invalid additional property: txt [json-pointer:/blocks/0]",
    ),
    (
        {"type": "header", "text": plain("x" * 151)},
        "must be less than 151 characters [json-pointer:/blocks/0/text/text]",
    ),
    (
        {"type": "header", "text": mrkdwn("x")},
        "must provide a text object of type plain_text [json-pointer:/blocks/0/text]",
    ),
    ({"type": "divider", "text": "x"}, "invalid additional property: text [json-pointer:/blocks/0]"),
    ({"type": "context"}, "missing required field: elements [json-pointer:/blocks/0]"),
    (
        {"type": "context", "elements": [mrkdwn("x")] * 11},
        "no more than 10 items allowed [json-pointer:/blocks/0/elements]",
    ),
    (
        {"type": "context", "elements": [button()]},
        "must provide a text object of type mrkdwn or plain_text [json-pointer:/blocks/0/elements/0]",
    ),
    (
        {"type": "context_actions", "elements": [button()]},
        "unsupported type: button [json-pointer:/blocks/0/elements/0/type]",
    ),
    (
        {"type": "context_actions", "elements": [feedback("x" * 2001)]},
        "must be less than 2001 characters [json-pointer:/blocks/0/elements/0/positive_button/value]",
    ),
    (
        {"type": "markdown", "text": "x" * 12_001},
        "must be less than 12001 characters [json-pointer:/blocks/0/text]",
    ),
    (
        {"type": "alert", "text": mrkdwn("x"), "level": "loud"},
        "must be a valid enum value [json-pointer:/blocks/0/level]",
    ),
    (
        {"type": "card", "subtitle": mrkdwn("x")},
        "must define at least one of hero_image, title, actions or body [json-pointer:/blocks/0]",
    ),
    (
        {"type": "card", "body": mrkdwn("x" * 201)},
        "must be less than 201 characters [json-pointer:/blocks/0/body/text]",
    ),
    (
        actions(*(button(action_id=f"b{number}") for number in range(26))),
        "no more than 25 items allowed [json-pointer:/blocks/0/elements]",
    ),
    (actions(), "must have at least 1 item [json-pointer:/blocks/0/elements]"),
    (
        actions(button(), button()),
        "`action_id` stop already exists [json-pointer:/blocks/0/elements/1/action_id]",
    ),
    (
        actions(button(text=plain("x" * 76))),
        "must be less than 76 characters [json-pointer:/blocks/0/elements/0/text/text]",
    ),
    (
        actions(button(value="x" * 2001)),
        "must be less than 2001 characters [json-pointer:/blocks/0/elements/0/value]",
    ),
    (
        actions(button(style="green")),
        "must be a valid enum value [json-pointer:/blocks/0/elements/0/style]",
    ),
    (
        plan(*(task(number) for number in range(51))),
        "no more than 50 items allowed [json-pointer:/blocks/0/tasks]",
    ),
    (plan(title="x" * 257), "must be less than 257 characters [json-pointer:/blocks/0/title]"),
    (
        plan(task(title="x" * 257)),
        "must be less than 257 characters [json-pointer:/blocks/0/tasks/0/title]",
    ),
    (
        plan(task(output=rich("x" * 257))),
        "must be less than 257 characters [json-pointer:/blocks/0/tasks/0/output]",
    ),
    (
        plan(task(details="x")),
        "must be a rich_text object [json-pointer:/blocks/0/tasks/0/details]",
    ),
    (
        plan(task(status="failed")),
        "must be a valid enum value [json-pointer:/blocks/0/tasks/0/status]",
    ),
    (plan(task(), task()), "`task_id` t1 already exists [json-pointer:/blocks/0/tasks/1/task_id]"),
    (plan({"title": "x"}), "missing required field: task_id [json-pointer:/blocks/0/tasks/0]"),
    (
        rich(""),
        "must be more than 0 characters [json-pointer:/blocks/0/elements/0/elements/0/text]",
    ),
    (
        {"type": "rich_text", "elements": [{"type": "text", "text": "x"}]},
        "unsupported type: text [json-pointer:/blocks/0/elements/0/type]",
    ),
    ({"type": "timeline"}, "unsupported type: timeline [json-pointer:/blocks/0/type]"),
    ({"type": ["plan"]}, "unsupported type:  [json-pointer:/blocks/0/type]"),
    (
        {"type": "divider", "block_id": "x" * 256},
        "must be less than 256 characters [json-pointer:/blocks/0/block_id]",
    ),
]


class TestBlocks:
    @pytest.mark.parametrize("block", TAKEN, ids=lambda block: block["type"])
    def test_what_slack_takes(self, block: Json) -> None:
        assert check_blocks([block]) == [block]

    @pytest.mark.parametrize(("block", "reason"), REFUSED, ids=[reason for _, reason in REFUSED])
    def test_what_slack_refuses(self, block: Json, reason: str) -> None:
        with pytest.raises(SlackError) as refusal:
            check_blocks([block])
        assert refusal.value.code == "invalid_blocks"
        assert reason in refusal.value.details

    def test_block_ids_are_unique(self) -> None:
        divider = {"type": "divider", "block_id": "one"}
        with pytest.raises(SlackError, match="already exists"):
            check_blocks([divider, divider])

    @pytest.mark.parametrize("blocks", ["not json", {"type": "divider"}, ["divider"]], ids=str)
    def test_what_is_no_list_of_blocks(self, blocks: object) -> None:
        with pytest.raises(SlackError, match="invalid_blocks_format"):
            check_blocks(blocks)

    async def test_the_reason_is_in_the_answer(self, slack: SlackPlayground) -> None:
        call = web_client(slack).chat_postMessage(channel="C_DEV", text="x", blocks=[section("x" * 3001)])
        body = await refused(call)
        reason = "must be less than 3001 characters [json-pointer:/blocks/0/text/text]"
        assert body["error"] == "invalid_blocks"
        assert body["errors"] == [reason]
        assert body["response_metadata"]["messages"] == [f"[ERROR] {reason}"]
        assert slack.messages("C_DEV") == []

    async def test_fifty_blocks_and_no_more(self, slack: SlackPlayground) -> None:
        client = web_client(slack)
        await client.chat_postMessage(channel="C_DEV", text="x", blocks=[{"type": "divider"}] * 50)
        body = await refused(
            client.chat_postMessage(channel="C_DEV", text="x", blocks=[{"type": "divider"}] * 51)
        )
        assert body["errors"] == ["no more than 50 items allowed [json-pointer:/blocks]"]

    async def test_all_blocks_together_have_a_limit(self, slack: SlackPlayground) -> None:
        client = web_client(slack)
        await client.chat_postMessage(channel="C_DEV", text="x", blocks=[section("x" * 2900)] * 4)
        call = client.chat_postMessage(channel="C_DEV", text="x", blocks=[section("x" * 2900)] * 5)
        assert (await refused(call))["error"] == "msg_blocks_too_long"

    async def test_a_workspace_can_lack_a_kind_of_block(self) -> None:
        async with SlackPlayground(unsupported_blocks={"plan"}).served() as slack:
            body = await refused(
                web_client(slack).chat_postMessage(channel="C_DEV", text="x", blocks=[plan(task())])
            )
        assert body["errors"] == ["unsupported type: plan [json-pointer:/blocks/0/type]"]


class TestTexts:
    async def test_a_message_says_something(self, slack: SlackPlayground) -> None:
        # Not by chat_postMessage, which warns of it by itself.
        call = web_client(slack).api_call("chat.postMessage", json={"channel": "C_DEV", "text": " "})
        assert (await refused(call))["error"] == "no_text"

    async def test_a_long_text_is_cut(self, slack: SlackPlayground) -> None:
        posted = await web_client(slack).chat_postMessage(channel="C_DEV", text="x" * 40_001)
        assert posted["warning"] == "message_truncated"
        assert len(slack.messages("C_DEV")[0].text) == 40_000

    async def test_an_update_is_not_cut_but_refused(self, slack: SlackPlayground) -> None:
        client = web_client(slack)
        posted = await client.chat_postMessage(channel="C_DEV", text="x")
        await client.chat_update(channel="C_DEV", ts=posted["ts"], text="x" * 4000)
        call = client.chat_update(channel="C_DEV", ts=posted["ts"], text="x" * 4001)
        assert (await refused(call))["error"] == "msg_too_long"

    async def test_markdown_text(self, slack: SlackPlayground) -> None:
        client = web_client(slack)
        await client.chat_postMessage(channel="C_DEV", markdown_text="**bold**")
        assert slack.messages("C_DEV")[0].shown == "**bold**"
        too_long = client.chat_postMessage(channel="C_DEV", markdown_text="x" * 12_001)
        assert (await refused(too_long))["error"] == "msg_too_long"
        both = client.chat_postMessage(channel="C_DEV", markdown_text="x", text="y")
        assert (await refused(both))["error"] == "markdown_text_conflict"


class TestRates:
    async def test_posting_too_fast_is_429_with_retry_after(self) -> None:
        async with SlackPlayground().served() as slack:
            client = web_client(slack)
            for number in range(5):
                await client.chat_postMessage(channel="C_DEV", text=str(number))
            with pytest.raises(SlackApiError) as refusal:
                await client.chat_postMessage(channel="C_DEV", text="too soon")
            await client.chat_postMessage(channel="C_RANDOM", text="elsewhere")
            assert len(slack.messages("C_DEV")) == 5
        assert refusal.value.response.status_code == 429
        assert refusal.value.response["error"] == "ratelimited"
        assert 1 <= int(refusal.value.response.headers["Retry-After"]) <= 5

    async def test_the_sdk_waits_as_it_is_told(self, slack: SlackPlayground) -> None:
        slack.fail_next("chat.postMessage", "ratelimited", retry_after=0)
        client = web_client(slack)
        client.retry_handlers.append(AsyncRateLimitErrorRetryHandler(max_retry_count=1))
        await client.chat_postMessage(channel="C_DEV", text="patience")
        assert [call.error for call in slack.calls_of("chat.postMessage")] == ["ratelimited", ""]
        assert len(slack.messages("C_DEV")) == 1

    def test_a_tier_3_method_is_good_for_fifty_a_minute(self) -> None:
        now = 0.0
        limiter = RateLimiter(DEFAULT_RATES, clock=lambda: now)
        assert [limiter.take("chat.update", "C_DEV") for _ in range(50)] == [0.0] * 50
        now = 20.0
        assert limiter.take("chat.update", "C_RANDOM") == 40.0
        assert limiter.take("reactions.add", "C_DEV") == 0.0
        now = 60.0
        assert limiter.take("chat.update", "C_DEV") == 0.0

    def test_rates_can_be_chosen(self) -> None:
        limiter = RateLimiter({**DEFAULT_RATES, "chat.update": (Rate(1, 10),)}, clock=lambda: 0.0)
        assert limiter.take("chat.update", "C_DEV") == 0.0
        assert limiter.take("chat.update", "C_DEV") == 10.0
        assert RateLimiter(NO_RATES).take("chat.update", "C_DEV") == 0.0
