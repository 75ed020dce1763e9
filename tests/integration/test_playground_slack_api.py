"""The playground's Web API, asked by the real AsyncWebClient: what each method does and refuses."""

import io
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from slack_sdk.errors import SlackApiError
from slack_sdk.web.async_client import AsyncWebClient

from handlers.playground.slack import SlackPlayground
from handlers.playground.slack_limits import NO_RATES
from handlers.playground.slack_state import DEFAULT_CHANNELS, Channel
from tests.integration.playground_bot import web_client

MARKER = {"event_type": "sandpiper_said", "event_payload": {"key": "turn-7"}}


@pytest.fixture
async def slack(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[SlackPlayground]:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    channels = (
        *DEFAULT_CHANNELS,
        Channel("C_ELSE", "elsewhere", ["U_ANA"]),
        Channel("G_SECRET", "secret", ["U_ANA"], kind="group"),
        Channel("C_OLD", "old", ["U_ANA", "U_BOT"], is_archived=True),
    )
    async with SlackPlayground(rates=NO_RATES, channels=channels).served() as playground:
        yield playground


@pytest.fixture
def client(slack: SlackPlayground) -> AsyncWebClient:
    return web_client(slack)


async def refusal(call: Any) -> str:
    """The error that a call is refused with."""
    with pytest.raises(SlackApiError) as refused:
        await call
    return str(refused.value.response["error"])


class TestWhoCalls:
    async def test_the_bot_learns_who_it_is(self, slack: SlackPlayground, client: AsyncWebClient) -> None:
        me = await client.auth_test()
        assert (me["user_id"], me["bot_id"]) == ("U_BOT", "B_BOT")
        assert (me["team_id"], me["team"]) == ("T_ACME", "Acme")
        assert me["url"] == f"{slack.url}/"
        assert (await client.team_info())["team"]["domain"] == "acme"

    async def test_tokens_are_checked(self, slack: SlackPlayground) -> None:
        def with_token(token: str | None) -> AsyncWebClient:
            return AsyncWebClient(token=token, base_url=slack.api_url)

        assert await refusal(with_token(None).auth_test()) == "not_authed"
        assert await refusal(with_token("xoxb-stolen").auth_test()) == "invalid_auth"
        assert await refusal(with_token(slack.app_token).auth_test()) == "not_allowed_token_type"
        bot = with_token(slack.bot_token)
        assert await refusal(bot.apps_connections_open(app_token=slack.bot_token)) == "not_allowed_token_type"

    async def test_a_method_that_is_not_there_is_unknown(self, client: AsyncWebClient) -> None:
        call = client.agents_sessions_setStatus(channel_id="C_DEV", status="processing", thread_ts="1.0")
        assert await refusal(call) == "unknown_method"

    async def test_a_form_says_the_same_as_json(self, slack: SlackPlayground) -> None:
        form = {"token": slack.bot_token, "channel": "C_DEV", "text": "hi", "blocks": '[{"type":"divider"}]'}
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"{slack.api_url}chat.postMessage", data=form) as answer,
        ):
            assert (await answer.json())["ok"]
        assert slack.messages("C_DEV")[0].blocks[0]["type"] == "divider"
        assert "token" not in slack.calls[0].arguments


class TestMessages:
    async def test_posting_in_a_thread(self, slack: SlackPlayground, client: AsyncWebClient) -> None:
        root = slack.post("U_ANA", "C_DEV", "question")
        posted = await client.chat_postMessage(channel="C_DEV", thread_ts=root, text="answer")
        assert posted["message"]["thread_ts"] == root
        replies = (await client.conversations_replies(channel="C_DEV", ts=root))["messages"]
        assert [message["text"] for message in replies] == ["question", "answer"]
        assert (replies[0]["reply_count"], replies[0]["latest_reply"]) == (1, posted["ts"])
        assert [message.text for message in slack.messages("C_DEV")] == ["question"]

    async def test_a_thread_needs_its_root(self, slack: SlackPlayground, client: AsyncWebClient) -> None:
        root = slack.post("U_ANA", "C_DEV", "question")
        reply = slack.post("U_BEN", "C_DEV", "answer", thread_ts=root)

        async def post_under(ts: str) -> str:
            return await refusal(client.chat_postMessage(channel="C_DEV", thread_ts=ts, text="x"))

        assert await post_under("1.000000") == "thread_not_found"
        assert await post_under(reply) == "cannot_reply_to_message"

    async def test_a_reply_can_be_shown_in_the_channel_too(
        self, slack: SlackPlayground, client: AsyncWebClient
    ) -> None:
        root = slack.post("U_ANA", "C_DEV", "question")
        await client.chat_postMessage(channel="C_DEV", thread_ts=root, text="loud", reply_broadcast=True)
        assert [message.text for message in slack.messages("C_DEV")] == ["question", "loud"]
        assert slack.deliveries[-1].event["subtype"] == "thread_broadcast"

    async def test_an_update_keeps_what_it_does_not_mention(
        self, slack: SlackPlayground, client: AsyncWebClient
    ) -> None:
        divider = [{"type": "divider"}]
        posted = await client.chat_postMessage(channel="C_DEV", text="one", blocks=divider, metadata=MARKER)
        await client.chat_update(channel="C_DEV", ts=posted["ts"], text="two")
        message = slack.message("C_DEV", posted["ts"])
        assert (message.text, message.blocks[0]["type"], message.metadata) == ("two", "divider", MARKER)
        await client.chat_update(channel="C_DEV", ts=posted["ts"], text="three", blocks=[], metadata={})
        assert (message.text, message.blocks, message.metadata) == ("three", [], None)
        assert slack.deliveries[-1].event["subtype"] == "message_changed"

    async def test_only_its_own_messages(self, slack: SlackPlayground, client: AsyncWebClient) -> None:
        anas = slack.post("U_ANA", "C_DEV", "mine")
        assert await refusal(client.chat_update(channel="C_DEV", ts=anas, text="x")) == "cant_update_message"
        assert await refusal(client.chat_delete(channel="C_DEV", ts=anas)) == "cant_delete_message"
        assert await refusal(client.chat_update(channel="C_DEV", ts="1.0", text="x")) == "message_not_found"
        posted = await client.chat_postMessage(channel="C_DEV", text="oops")
        await client.chat_delete(channel="C_DEV", ts=posted["ts"])
        assert [message.user for message in slack.messages("C_DEV")] == ["U_ANA"]

    async def test_a_closed_edit_window(self) -> None:
        async with SlackPlayground(edit_window=0.0).served() as slack:
            client = web_client(slack)
            posted = await client.chat_postMessage(channel="C_DEV", text="final")
            call = client.chat_update(channel="C_DEV", ts=posted["ts"], text="or not")
            assert await refusal(call) == "edit_window_closed"

    async def test_the_marker_is_found_again(self, slack: SlackPlayground, client: AsyncWebClient) -> None:
        root = slack.post("U_ANA", "C_DEV", "question")
        await client.chat_postMessage(channel="C_DEV", thread_ts=root, text="answer", metadata=MARKER)
        plain = await client.conversations_replies(channel="C_DEV", ts=root)
        assert "metadata" not in plain["messages"][1]
        full = await client.conversations_replies(channel="C_DEV", ts=root, include_all_metadata=True)
        assert full["messages"][1]["metadata"] == MARKER

    async def test_a_marker_has_a_form(self, client: AsyncWebClient) -> None:
        async def post_with(metadata: dict[str, Any]) -> str:
            return await refusal(client.chat_postMessage(channel="C_DEV", text="x", metadata=metadata))

        assert await post_with({"event_type": "said"}) == "invalid_metadata_format"
        assert await post_with(MARKER | {"event_payload": {"key": "x" * 9000}}) == "metadata_too_large"

    async def test_an_ephemeral_message_is_for_one(
        self, slack: SlackPlayground, client: AsyncWebClient
    ) -> None:
        posted = await client.chat_postEphemeral(channel="C_DEV", user="U_ANA", text="psst")
        assert [message.text for message in slack.ephemerals("U_ANA")] == ["psst"]
        assert (await client.conversations_history(channel="C_DEV"))["messages"] == []
        update = client.chat_update(channel="C_DEV", ts=posted["message_ts"], text="x")
        assert await refusal(update) == "message_not_found"
        stranger = client.chat_postEphemeral(channel="C_DEV", user="U_NOBODY", text="x")
        assert await refusal(stranger) == "user_not_in_channel"

    async def test_history_comes_in_pages_newest_first(
        self, slack: SlackPlayground, client: AsyncWebClient
    ) -> None:
        sent = [slack.post("U_ANA", "C_DEV", f"message {number}") for number in range(5)]
        first = await client.conversations_history(channel="C_DEV", limit=3)
        assert [message["text"] for message in first["messages"]] == ["message 4", "message 3", "message 2"]
        cursor = first["response_metadata"]["next_cursor"]
        second = await client.conversations_history(channel="C_DEV", limit=3, cursor=cursor)
        assert [message["text"] for message in second["messages"]] == ["message 1", "message 0"]
        assert not second["has_more"]
        later = await client.conversations_history(channel="C_DEV", oldest=sent[3])
        assert [message["ts"] for message in later["messages"]] == [sent[4]]
        assert await refusal(client.conversations_history(channel="C_DEV", cursor="@@")) == "invalid_cursor"
        assert (
            await refusal(client.conversations_replies(channel="C_DEV", ts="1.000000")) == "thread_not_found"
        )

    async def test_a_permalink(self, slack: SlackPlayground, client: AsyncWebClient) -> None:
        root = slack.post("U_ANA", "C_DEV", "question")
        answer = await client.chat_getPermalink(channel="C_DEV", message_ts=root)
        assert answer["permalink"] == slack.permalink("C_DEV", root)
        assert answer["permalink"].endswith(f"/archives/C_DEV/p{root.replace('.', '')}")


class TestReactions:
    async def test_they_are_put_and_taken_once(self, slack: SlackPlayground, client: AsyncWebClient) -> None:
        ts = slack.post("U_ANA", "C_DEV", "look")
        await client.reactions_add(channel="C_DEV", timestamp=ts, name="eyes")
        slack.react("U_BEN", "C_DEV", ts, "eyes")
        assert slack.reactions("C_DEV", ts) == {"eyes": ["U_BOT", "U_BEN"]}
        assert (
            await refusal(client.reactions_add(channel="C_DEV", timestamp=ts, name="eyes"))
            == "already_reacted"
        )
        await client.reactions_remove(channel="C_DEV", timestamp=ts, name="eyes")
        assert slack.reactions("C_DEV", ts) == {"eyes": ["U_BEN"]}
        assert (
            await refusal(client.reactions_remove(channel="C_DEV", timestamp=ts, name="eyes"))
            == "no_reaction"
        )
        assert (
            await refusal(client.reactions_add(channel="C_DEV", timestamp=ts, name="Not One"))
            == "invalid_name"
        )


class TestPlacesAndPeople:
    async def test_channels_that_the_bot_is_not_in(self, client: AsyncWebClient) -> None:
        assert not (await client.conversations_info(channel="C_ELSE"))["channel"]["is_member"]
        assert await refusal(client.chat_postMessage(channel="C_ELSE", text="x")) == "not_in_channel"
        assert await refusal(client.conversations_info(channel="G_SECRET")) == "channel_not_found"
        assert await refusal(client.chat_postMessage(channel="C_NONE", text="x")) == "channel_not_found"
        assert await refusal(client.chat_postMessage(channel="C_OLD", text="x")) == "is_archived"

    async def test_a_direct_channel_is_opened(self, slack: SlackPlayground, client: AsyncWebClient) -> None:
        opened = await client.conversations_open(users=["U_ANA"])
        channel = opened["channel"]["id"]
        assert channel == slack.direct_channel("U_ANA")
        info = (await client.conversations_info(channel=channel))["channel"]
        assert (info["is_im"], info["user"]) == (True, "U_ANA")
        await client.chat_postMessage(channel="U_ANA", text="hello")
        assert [message.text for message in slack.messages(channel)] == ["hello"]
        assert await refusal(client.conversations_open(users="U_NOBODY")) == "user_not_found"

    async def test_people(self, client: AsyncWebClient) -> None:
        user = (await client.users_info(user="U_ANA"))["user"]
        assert (user["name"], user["team_id"], user["is_bot"]) == ("ana", "T_ACME", False)
        assert user["profile"]["display_name"] == "ana"
        assert await refusal(client.users_info(user="U_NOBODY")) == "user_not_found"


PNG = b"\x89PNG\r\n\x1a\n" + bytes(40)


class TestFiles:
    """By the SDK's own three calls in a row, and one by one."""

    async def test_a_file_is_shared_in_a_thread(self, slack: SlackPlayground, client: AsyncWebClient) -> None:
        root = slack.post("U_ANA", "C_DEV", "draw it")
        answer = await client.files_upload_v2(
            content=PNG,
            filename="shot.png",
            title="The page",
            channel="C_DEV",
            thread_ts=root,
            initial_comment="Here it is",
        )
        assert answer["files"][0]["shares"] == {}
        (message,) = slack.messages("C_DEV", root)[1:]
        assert (message.text, message.subtype) == ("Here it is", "file_share")
        (told,) = (await client.conversations_replies(channel="C_DEV", ts=root))["messages"][1:]
        (shown,) = told["files"]
        assert (shown["name"], shown["title"], shown["size"]) == ("shot.png", "The page", len(PNG))
        file = slack.file(shown["id"])
        assert file is not None and (file.data, file.picture) == (PNG, "image/png")

    async def test_blocks_are_taken_where_there_is_no_comment(
        self, slack: SlackPlayground, client: AsyncWebClient
    ) -> None:
        blocks = [{"type": "section", "block_id": "b1", "text": {"type": "mrkdwn", "text": "*Timings*"}}]
        for comment in (None, "hello"):
            await client.files_upload_v2(
                content="12 ms",
                filename="t.txt",
                channel="C_DEV",
                blocks=json.dumps(blocks),
                initial_comment=comment,
            )
        assert [message.blocks for message in slack.messages("C_DEV")] == [blocks, []]
        markdown = [{"type": "markdown", "text": "*Timings*"}]
        assert (
            await refusal(
                client.files_upload_v2(
                    content="x", filename="t.txt", channel="C_DEV", blocks=json.dumps(markdown)
                )
            )
            == "internal_error"
        )

    async def test_what_slack_does_not_take(self, client: AsyncWebClient) -> None:
        url = client.files_getUploadURLExternal
        assert await refusal(url(filename="empty.txt", length=0)) == "missing_argument"
        assert await refusal(url(filename="large", length=1_000_000_001)) == "file_upload_size_restricted"
        assert await refusal(url(filename="a.png", length=1, alt_txt="x" * 1_001)) == "alt_txt_too_large"
        ticket = await url(filename="a.txt", length=5)
        files = [{"id": ticket["file_id"]}]
        complete = client.files_completeUploadExternal
        assert await refusal(complete(files=files)) == "file_not_found"
        async with aiohttp.ClientSession() as session:
            for data, status in ((b"four", 400), (b"12 ms", 200), (b"again", 400)):
                async with session.post(ticket["upload_url"], data=data) as answer:
                    assert answer.status == status
        for channel, error in (
            ("C_ELSE", "not_in_channel"),
            ("G_SECRET", "channel_not_found"),
            ("C_OLD", "is_archived"),
            ("U_ANA", "invalid_arguments"),
        ):
            assert await refusal(complete(files=files, channel_id=channel)) == error
        missing = complete(files=files, channel_id="C_DEV", thread_ts="1600000000.000100")
        assert await refusal(missing) == "thread_not_found"
        await complete(files=files, channel_id="C_DEV")
        assert await refusal(complete(files=files, channel_id="C_DEV")) == "file_not_found"

    async def test_only_the_newest_files_are_kept(
        self, slack: SlackPlayground, client: AsyncWebClient
    ) -> None:
        size = 40_000_000
        async with aiohttp.ClientSession() as session:
            for number in range(3):
                ticket = await client.files_getUploadURLExternal(filename=f"{number}.bin", length=size)
                async with session.post(ticket["upload_url"], data=io.BytesIO(bytes(size))) as answer:
                    assert answer.status == 200
                files: list[dict[str, str | None]] = [{"id": ticket["file_id"]}]
                await client.files_completeUploadExternal(files=files, channel_id="C_DEV")
        ids = [message.files[0]["id"] for message in slack.messages("C_DEV")]
        assert [slack.file(id) is not None for id in ids] == [False, True, True]


class TestFaults:
    async def test_a_method_can_be_made_to_fail(self, slack: SlackPlayground, client: AsyncWebClient) -> None:
        slack.fail_next("chat.postMessage", "internal_error", times=2)
        for _ in range(2):
            assert await refusal(client.chat_postMessage(channel="C_DEV", text="x")) == "internal_error"
        await client.chat_postMessage(channel="C_DEV", text="at last")
        assert [message.text for message in slack.messages("C_DEV")] == ["at last"]
        assert [call.error for call in slack.calls_of("chat.postMessage")] == [
            "internal_error",
            "internal_error",
            "",
        ]

    async def test_a_lost_answer_had_its_effect(self, slack: SlackPlayground, client: AsyncWebClient) -> None:
        slack.lose_answer_next("chat.postMessage")
        with pytest.raises(aiohttp.ClientConnectionError):
            await client.chat_postMessage(channel="C_DEV", text="posted")
        assert [message.text for message in slack.messages("C_DEV")] == ["posted"]

    async def test_a_lost_request_had_none(self, slack: SlackPlayground, client: AsyncWebClient) -> None:
        slack.lose_request_next("chat.postMessage")
        with pytest.raises(aiohttp.ClientConnectionError):
            await client.chat_postMessage(channel="C_DEV", text="lost")
        assert slack.messages("C_DEV") == []

    async def test_the_sdks_own_retry_posts_twice(self, slack: SlackPlayground) -> None:
        slack.lose_answer_next("chat.postMessage")
        with_retries = AsyncWebClient(token=slack.bot_token, base_url=slack.api_url)
        await with_retries.chat_postMessage(channel="C_DEV", text="once?")
        assert [message.text for message in slack.messages("C_DEV")] == ["once?", "once?"]


class TestResponseUrls:
    async def test_they_are_good_for_five_uses(self, slack: SlackPlayground) -> None:
        slack.request_url = f"{slack.url}/nowhere"
        with pytest.raises(Exception, match="dispatch_failed"):
            await slack.slash("U_ANA", "C_DEV", "/sandpiper", "hi")
        url = slack.deliveries[-1].payload["response_url"]
        async with aiohttp.ClientSession() as session:
            answers = []
            for number in range(6):
                async with session.post(url, json={"text": f"answer {number}"}) as answer:
                    answers.append((answer.status, await answer.text()))
            async with session.post(f"{slack.url}/responses/other", json={"text": "x"}) as answer:
                assert (answer.status, await answer.text()) == (404, "expired_url")
        assert answers == [(200, "ok")] * 5 + [(404, "used_url")]
        assert len(slack.ephemerals("U_ANA")) == 5
