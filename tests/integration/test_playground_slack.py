"""People and a bot made with the real Bolt meet in the playground's Slack, over Socket Mode."""

import contextlib
import json
from collections.abc import AsyncIterator

import aiohttp
import pytest

from handlers.playground.changes import Changes
from handlers.playground.slack import SlackPlayground
from handlers.playground.slack_limits import NO_RATES
from handlers.playground.slack_state import Channel, SlackError, User
from tests.integration.playground_bot import Bot, web_client

PLAN_WITH_STOP = [
    {"type": "plan", "title": "Running tests", "tasks": [{"task_id": "1", "title": "pytest"}]},
    {
        "type": "actions",
        "block_id": "turn",
        "elements": [
            {
                "type": "button",
                "action_id": "stop",
                "text": {"type": "plain_text", "text": "Stop"},
                "style": "danger",
                "value": "turn-7",
            }
        ],
    },
]


@pytest.fixture(autouse=True)
def without_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDK would send even loopback through a proxy of the environment."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
async def slack() -> AsyncIterator[SlackPlayground]:
    async with SlackPlayground().served() as playground:
        yield playground


@pytest.fixture
async def hasty() -> AsyncIterator[SlackPlayground]:
    """A Slack that waits half a second for an acknowledgement, and not at all before it tries again."""
    async with SlackPlayground(ack_timeout=0.5, retry_delays=(0.0, 0.0, 0.0)).served() as playground:
        yield playground


def all_acknowledged(slack: SlackPlayground) -> bool:
    return bool(slack.deliveries) and not slack.undelivered


class TestMessages:
    async def test_a_mention_comes_as_two_events_and_its_answer_is_seen(self, slack: SlackPlayground) -> None:
        async with Bot(slack).connected() as bot:
            root = slack.post("U_ANA", "C_DEV", "@sandpiper fix the login")
            reply = await slack.wait_for(lambda: slack.messages("C_DEV", root)[1:])
            await slack.wait_for(lambda: all_acknowledged(slack))
        assert [message.shown for message in reply] == ["on it"]
        assert reply[0].user == slack.bot_user_id
        message, mention = bot.events("message")[0], bot.events("app_mention")[0]
        assert message["ts"] == mention["ts"] == root
        assert message["text"] == mention["text"] == "<@U_BOT> fix the login"
        assert message["channel_type"] == "channel"
        assert "channel_type" not in mention
        assert len({body["event_id"] for body in bot.bodies}) == len(bot.bodies) == 2
        assert bot.bodies[0]["authorizations"][0]["user_id"] == slack.bot_user_id
        assert bot.retries == [("0", ""), ("0", "")]

    async def test_a_mention_may_come_before_its_message(self, slack: SlackPlayground) -> None:
        slack.mention_first = True
        async with Bot(slack).connected():
            slack.post("U_ANA", "C_DEV", "@sandpiper hello")
            await slack.wait_for(lambda: len(slack.deliveries) >= 2)
        assert [delivery.event["type"] for delivery in slack.deliveries][:2] == ["app_mention", "message"]

    async def test_a_reply_tells_its_thread(self, slack: SlackPlayground) -> None:
        async with Bot(slack).connected() as bot:
            root = slack.post("U_ANA", "C_DEV", "who knows this?")
            slack.post("U_BEN", "C_DEV", "I do", thread_ts=root)
            await slack.wait_for(lambda: all_acknowledged(slack))
        reply = bot.events("message")[1]
        assert (reply["thread_ts"], reply["parent_user_id"]) == (root, "U_ANA")

    async def test_a_direct_message_is_a_message_only(self, slack: SlackPlayground) -> None:
        channel = slack.direct_channel("U_ANA")
        async with Bot(slack).connected() as bot:
            slack.post("U_ANA", channel, "@sandpiper are you there?")
            await slack.wait_for(lambda: all_acknowledged(slack))
        assert [event["channel_type"] for event in bot.events("message")] == ["im"]
        assert bot.events("app_mention") == []

    async def test_edits_and_deletions_are_told(self, slack: SlackPlayground) -> None:
        async with Bot(slack).connected() as bot:
            ts = slack.post("U_ANA", "C_DEV", "fix teh login")
            slack.edit("U_ANA", "C_DEV", ts, "fix the login")
            slack.delete("U_ANA", "C_DEV", ts)
            await slack.wait_for(lambda: all_acknowledged(slack))
        changed, deleted = bot.events("message")[1:]
        assert (changed["subtype"], deleted["subtype"]) == ("message_changed", "message_deleted")
        assert changed["message"]["text"] == "fix the login"
        assert changed["message"]["edited"]["user"] == "U_ANA"
        assert changed["previous_message"]["text"] == "fix teh login"
        assert deleted["deleted_ts"] == ts
        assert slack.messages("C_DEV") == []

    async def test_a_deleted_root_with_replies_leaves_a_tombstone(self, slack: SlackPlayground) -> None:
        root = slack.post("U_ANA", "C_DEV", "question")
        slack.post("U_BEN", "C_DEV", "answer", thread_ts=root)
        slack.delete("U_ANA", "C_DEV", root)
        event = slack.deliveries[-1].event
        assert (event["subtype"], event["message"]["subtype"]) == ("message_changed", "tombstone")
        assert [message.text for message in slack.messages("C_DEV", root)][1:] == ["answer"]

    async def test_the_bots_own_posts_come_back_with_its_bot_id(self, slack: SlackPlayground) -> None:
        await web_client(slack).chat_postMessage(channel="C_DEV", text="hello")
        event = slack.deliveries[-1].event
        assert (event["type"], event["bot_id"], event["user"]) == ("message", "B_BOT", "U_BOT")

    async def test_what_people_type_is_written_as_slack_writes_it(self, slack: SlackPlayground) -> None:
        typed = "@sandpiper is a < b & mail@ben see https://acme.example/?a=1&b=2. <@U_BEN> @nobody"
        slack.post("U_ANA", "C_DEV", typed)
        event = slack.deliveries[0].event
        assert event["text"] == (
            "<@U_BOT> is a &lt; b &amp; mail@ben see <https://acme.example/?a=1&amp;b=2>. <@U_BEN> @nobody"
        )
        elements = event["blocks"][0]["elements"][0]["elements"]
        assert [element["type"] for element in elements] == ["user", "text", "link", "text", "user", "text"]
        assert elements[2]["url"] == "https://acme.example/?a=1&b=2"

    async def test_people_from_elsewhere_are_marked(self) -> None:
        guest = User("U_FOE", "foe", "Foe", team_id="T_OTHER")
        shared = Channel("C_EXT", "ext", ["U_FOE", "U_BOT"], is_ext_shared=True)
        slack = SlackPlayground(users=[guest], channels=[shared])
        slack.post("U_FOE", "C_EXT", "hello")
        payload = slack.deliveries[0].payload
        assert payload["is_ext_shared_channel"] is True
        assert payload["event"]["user_team"] == "T_OTHER"

    async def test_people_can_do_only_what_slack_lets_them(self, slack: SlackPlayground) -> None:
        ts = slack.post("U_ANA", "C_DEV", "mine")
        with pytest.raises(SlackError, match="cant_update_message"):
            slack.edit("U_BEN", "C_DEV", ts, "not mine")
        with pytest.raises(SlackError, match="cant_delete_message"):
            slack.delete("U_BEN", "C_DEV", ts)
        with pytest.raises(SlackError, match="not_in_channel"):
            slack.post("U_BEN", slack.direct_channel("U_ANA"), "psst")
        with pytest.raises(SlackError, match="user_not_found"):
            slack.post("U_NOBODY", "C_DEV", "boo")
        with pytest.raises(SlackError, match="thread_not_found"):
            slack.post("U_ANA", "C_DEV", "where?", thread_ts="1.000000")

    async def test_bots_of_others_are_heard_too(self) -> None:
        other_bot = User("U_CI", "ci", "Continuous", is_bot=True)
        slack = SlackPlayground(users=[other_bot], channels=[Channel("C_CI", "ci", ["U_CI", "U_BOT"])])
        slack.post("U_CI", "C_CI", "@sandpiper the build is red")
        assert [delivery.event["type"] for delivery in slack.deliveries] == ["message", "app_mention"]
        event = slack.deliveries[0].event
        assert event["bot_id"] == "B_CI"
        assert "app_id" not in event


class TestDelivery:
    async def test_an_event_that_was_not_acknowledged_comes_again(self, hasty: SlackPlayground) -> None:
        bot = Bot(hasty)
        bot.failures_to_come = 1
        async with bot.connected():
            hasty.post("U_ANA", "C_DEV", "hello")
            await hasty.wait_for(lambda: all_acknowledged(hasty))
        assert bot.texts() == ["hello"]
        assert bot.retries == [("0", ""), ("1", "timeout")]

    async def test_after_three_retries_an_event_is_given_up(self, hasty: SlackPlayground) -> None:
        bot = Bot(hasty)
        bot.failures_to_come = 10
        async with bot.connected():
            hasty.post("U_ANA", "C_DEV", "hello")
            await hasty.wait_for(lambda: hasty.deliveries[0].state == "abandoned")
        assert [number for number, _ in bot.retries] == ["0", "1", "2", "3"]

    async def test_events_wait_for_a_bot_that_is_away(self, slack: SlackPlayground) -> None:
        async with Bot(slack).connected() as bot:
            slack.post("U_ANA", "C_DEV", "one")
            await slack.wait_for(lambda: all_acknowledged(slack))
        await slack.wait_for(lambda: slack.connections == 0)
        slack.post("U_ANA", "C_DEV", "two")
        slack.post("U_ANA", "C_DEV", "three")
        async with Bot(slack).connected() as restarted:
            await slack.wait_for(lambda: all_acknowledged(slack))
        assert bot.texts() == ["one"]
        assert sorted(restarted.texts()) == ["three", "two"]
        assert {number for number, _ in restarted.retries} == {"1"}

    async def test_an_event_in_flight_on_a_broken_socket_comes_again(self, slack: SlackPlayground) -> None:
        bot = Bot(slack)
        bot.failures_to_come = 1
        async with bot.connected():
            slack.post("U_ANA", "C_DEV", "hello")
            await bot.reached.wait()
            slack.cut_connections()
            await slack.wait_for(lambda: all_acknowledged(slack))
        assert bot.texts() == ["hello"]
        assert bot.retries[-1] == ("1", "connection_failed")

    async def test_each_event_goes_to_one_of_several_sockets(self, slack: SlackPlayground) -> None:
        async with Bot(slack).connected(sockets=2) as bot:
            for number in range(6):
                slack.post("U_ANA", "C_DEV", f"message {number}")
            await slack.wait_for(lambda: all_acknowledged(slack))
        assert sorted(bot.texts()) == [f"message {number}" for number in range(6)]

    async def test_sockets_are_rotated_without_loss(self, slack: SlackPlayground) -> None:
        async with Bot(slack).connected(sockets=2) as bot:
            slack.rotate_connections()
            slack.post("U_ANA", "C_DEV", "in between")
            await slack.wait_for(lambda: slack.connections == 2)
            slack.post("U_ANA", "C_DEV", "afterwards")
            await slack.wait_for(lambda: all_acknowledged(slack))
        assert sorted(bot.texts()) == ["afterwards", "in between"]

    async def test_an_eleventh_socket_is_turned_away(self) -> None:
        async with (
            SlackPlayground(rates=NO_RATES).served() as slack,
            Bot(slack).connected(sockets=10),
            aiohttp.ClientSession() as session,
        ):
            opened = await web_client(slack).apps_connections_open(app_token=slack.app_token)
            async with session.ws_connect(opened["url"]) as socket:
                assert (await socket.receive_json())["reason"] == "too_many_websockets"
                assert (await socket.receive()).type is aiohttp.WSMsgType.CLOSE
            assert slack.connections == 10

    async def test_an_address_of_a_socket_is_good_once(self, slack: SlackPlayground) -> None:
        opened = await web_client(slack).apps_connections_open(app_token=slack.app_token)
        async with aiohttp.ClientSession() as session:
            async with session.ws_connect(opened["url"]) as socket:
                hello = await socket.receive_json()
                assert (hello["type"], hello["num_connections"]) == ("hello", 1)
            with pytest.raises(aiohttp.WSServerHandshakeError):
                await session.ws_connect(opened["url"])

    async def test_an_event_can_come_twice(self, slack: SlackPlayground) -> None:
        slack.deliver_twice()
        async with Bot(slack).connected() as bot:
            slack.post("U_ANA", "C_DEV", "once?")
            slack.post("U_ANA", "C_DEV", "once")
            await slack.wait_for(lambda: all_acknowledged(slack))
        assert sorted(bot.texts()) == ["once", "once?", "once?"]
        assert len({body["event_id"] for body in bot.bodies}) == 2

    async def test_a_reply_can_overtake_its_root(self, slack: SlackPlayground) -> None:
        async with Bot(slack).connected() as bot:
            with slack.newest_first():
                root = slack.post("U_ANA", "C_DEV", "root")
                slack.post("U_BEN", "C_DEV", "reply", thread_ts=root)
            await slack.wait_for(lambda: all_acknowledged(slack))
        assert bot.texts() == ["reply", "root"]


class TestClicksAndCommands:
    async def test_a_click_carries_its_message_and_can_replace_it(self, slack: SlackPlayground) -> None:
        async with Bot(slack).connected() as bot:
            root = slack.post("U_ANA", "C_DEV", "please")
            posted = await web_client(slack).chat_postMessage(
                channel="C_DEV", thread_ts=root, text="Running tests", blocks=PLAN_WITH_STOP
            )
            await slack.click("U_BEN", "C_DEV", posted["ts"], "stop")
            await slack.wait_for(lambda: slack.message("C_DEV", posted["ts"]).shown == "stopped")
        click = bot.clicks[0]
        assert click["actions"][0]["value"] == "turn-7"
        assert click["actions"][0]["block_id"] == "turn"
        assert click["user"]["id"] == "U_BEN"
        assert click["container"] == {
            "type": "message",
            "message_ts": posted["ts"],
            "channel_id": "C_DEV",
            "is_ephemeral": False,
            "thread_ts": root,
        }
        assert click["message"]["blocks"][0]["title"] == "Running tests"

    async def test_a_button_that_an_edit_took_away_can_be_pressed_where_it_is_shown_still(
        self, slack: SlackPlayground
    ) -> None:
        async with Bot(slack).connected() as bot:
            client = web_client(slack)
            posted = await client.chat_postMessage(channel="C_DEV", text="Running", blocks=PLAN_WITH_STOP)
            for title in ("Publishing", "Published"):
                plan = [{**PLAN_WITH_STOP[0], "title": title}]
                await client.chat_update(channel="C_DEV", ts=posted["ts"], text=title, blocks=plan)
            with pytest.raises(SlackError, match="action_not_found"):
                await slack.click("U_ANA", "C_DEV", posted["ts"], "stop")
            with pytest.raises(SlackError, match="action_not_found"):
                await slack.click("U_ANA", "C_DEV", posted["ts"], "start", earlier=True)
            assert bot.clicks == []
            await slack.click("U_ANA", "C_DEV", posted["ts"], "stop", earlier=True)
        (click,) = bot.clicks
        assert click["actions"][0]["value"] == "turn-7"
        assert click["message"]["blocks"][0]["title"] == PLAN_WITH_STOP[0]["title"]
        assert click["container"]["message_ts"] == posted["ts"]

    async def test_a_click_that_nobody_takes_fails_for_its_person(self, slack: SlackPlayground) -> None:
        client = web_client(slack)
        posted = await client.chat_postMessage(channel="C_DEV", text="?", blocks=PLAN_WITH_STOP)
        with pytest.raises(SlackError, match="dispatch_failed"):
            await slack.click("U_ANA", "C_DEV", posted["ts"], "stop")
        with pytest.raises(SlackError, match="action_not_found"):
            await slack.click("U_ANA", "C_DEV", posted["ts"], "start")

    async def test_a_command_is_answered_to_its_person_and_to_all(self, slack: SlackPlayground) -> None:
        async with Bot(slack).connected() as bot:
            await slack.slash("U_ANA", "C_DEV", "/sandpiper", "status")
            await slack.wait_for(lambda: len(slack.messages("C_DEV")) == 1)
        assert bot.commands[0]["user_id"] == "U_ANA"
        assert bot.commands[0]["channel_id"] == "C_DEV"
        assert "thread_ts" not in bot.commands[0]
        assert [message.text for message in slack.ephemerals("U_ANA")] == ["heard status"]
        assert slack.ephemerals("U_BEN") == []
        assert [message.text for message in slack.messages("C_DEV")] == ["and done"]

    async def test_a_command_that_the_bot_does_not_know_times_out(self, hasty: SlackPlayground) -> None:
        async with Bot(hasty).connected():
            with pytest.raises(SlackError, match="operation_timeout"):
                await hasty.slash("U_ANA", "C_DEV", "/unheard-of")


class TestFollowing:
    async def test_a_page_can_follow_what_changes(self, slack: SlackPlayground) -> None:
        before = slack.snapshot()["change"]
        ts = slack.post("U_ANA", "C_DEV", "hello")
        async with contextlib.aclosing(slack.changes.follow(before)) as changes:
            change = await anext(changes)
        assert (change.kind, change.place, change.item) == ("posted", "C_DEV", ts)
        assert json.loads(json.dumps(slack.snapshot()))["messages"][0]["text"] == "hello"

    async def test_who_was_away_too_long_is_told_to_read_again(self) -> None:
        changes = Changes(kept=2)
        for number in range(5):
            changes.note("posted", item=str(number))
        for known in (1, 99):
            async with contextlib.aclosing(changes.follow(known)) as followed:
                kinds = [(await anext(followed)).kind for _ in range(3)]
            assert kinds == ["missed", "posted", "posted"]

    async def test_who_waits_in_vain_is_told_what_there_is(self, slack: SlackPlayground) -> None:
        slack.post("U_ANA", "C_DEV", "nothing else")
        with pytest.raises(TimeoutError, match="nothing else"):
            await slack.wait_for(lambda: slack.messages("C_RANDOM"), timeout=0.05)
