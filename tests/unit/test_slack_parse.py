"""What people say in Slack, from the raw delivery to a message."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.errors import Undecodable
from bot.models import Attachment, Delivery, Message, MessageRef, Mode, ThreadKey, Verb
from handlers.slack import parse
from handlers.slack.parse import lane, people, worth_keeping

BOT = "U0BOT"
NAMES = {"U1ANA": "Ana", "U2BEN": "Ben"}
Json = dict[str, Any]


def said(text: str, **more: Any) -> Json:
    return {
        "type": "message",
        "user": "U1ANA",
        "text": text,
        "ts": "1700000100.000200",
        "event_ts": "1700000100.000200",
        "channel": "C1DEV",
        "channel_type": "channel",
        "team": "T1",
        **more,
    }


def reply(text: str, **more: Any) -> Json:
    return said(text, thread_ts="1700000000.000100", **more)


def direct(text: str, **more: Any) -> Json:
    return said(text, channel="D1ANA", channel_type="im", **more)


def changed(before: Json, now: Json) -> Json:
    inner = ("user", "text", "ts", "thread_ts", "edited", "subtype", "bot_id")
    return {
        "type": "message",
        "subtype": "message_changed",
        "hidden": True,
        "channel": before["channel"],
        "ts": "1700000200.000300",
        "event_ts": "1700000200.000300",
        "message": {name: now[name] for name in inner if name in now},
        "previous_message": {name: before[name] for name in inner if name in before},
    }


def deleted(before: Json) -> Json:
    return {
        "type": "message",
        "subtype": "message_deleted",
        "hidden": True,
        "channel": before["channel"],
        "ts": "1700000200.000300",
        "event_ts": "1700000200.000300",
        "deleted_ts": before["ts"],
        "previous_message": before,
    }


def callback(event: Json, **more: Any) -> Json:
    return {"type": "event_callback", "team_id": "T1", "event_id": "Ev1", "event": event, **more}


def delivery(body: object, kind: str = "event") -> Delivery:
    return Delivery("slack", "Ev1", kind, json.dumps(body).encode(), received_at=1700000300.5)


def read(event: Json, **more: Any) -> tuple[Message, ...]:
    return parse.messages(delivery(callback(event, **more)), BOT, NAMES)


def read_one(event: Json, **more: Any) -> Message:
    (message,) = read(event, **more)
    return message


# Messages


def test_a_mention_starts_a_thread_of_its_own() -> None:
    message = read_one(said("<@U0BOT> fix the login loop"))
    assert message.key == "slack:T1/C1DEV/1700000100.000200"
    assert message.thread == ThreadKey("slack", "T1/C1DEV", "1700000100.000200")
    assert message.ref == MessageRef("slack", "C1DEV", "1700000100.000200")
    assert message.sent == "1700000100.000200"
    assert message.text == "fix the login loop"
    assert message.addressed
    assert (message.author.tenant, message.author.user, message.author.name) == ("slack:T1", "U1ANA", "Ana")


def test_the_two_events_about_one_mention_are_the_same_message() -> None:
    both = said("<@U0BOT> fix the login loop")
    mention = {**both, "type": "app_mention"}
    del mention["channel_type"]
    assert read_one(both) == read_one(mention)


def test_a_reply_belongs_to_its_thread_and_need_not_name_us() -> None:
    message = read_one(reply("also keep ?next="))
    assert message.thread.id == "1700000000.000100"
    assert not message.addressed
    assert read_one(reply("<@U0BOT> status")).addressed


def test_a_direct_message_is_addressed_and_a_root() -> None:
    message = read_one(direct("fix the login loop"))
    assert message.addressed
    assert message.thread == ThreadKey("slack", "T1/D1ANA", "1700000100.000200")


def test_an_organisation_is_the_tenant_of_its_workspaces() -> None:
    assert read_one(direct("hi"), enterprise_id="E1").author.tenant == "slack:E1"
    installs = [{"enterprise_id": "E2", "team_id": "T1"}]
    assert read_one(direct("hi"), authorizations=installs).author.tenant == "slack:E2"


def test_commands_and_options_are_read_after_the_mention() -> None:
    message = read_one(said("<@U0BOT>: queue: tidy up repo=acme/web"))
    assert (message.mode, message.text, message.options) == (Mode.QUEUE, "tidy up", {"repo": "acme/web"})
    assert read_one(reply("stop")).verb is Verb.STOP
    assert read_one(reply("stop using tabs in foo.py")).verb is None


def test_slack_markup_becomes_plain_words() -> None:
    raw = (
        "<@U0BOT|sandpiper> ask <@U2BEN> or <@U9|Zoe> in <#C2|ops>: is `a &lt; b &amp;&amp; c` right? "
        "See <https://acme.test/a?b=1&amp;c=2> and <https://acme.test/docs|the docs> <!here> "
        "<mailto:ana@acme.test|ana@acme.test> <http://acme.test|acme.test> &amp;lt;"
    )
    assert read_one(said(raw)).text == (
        "ask @Ben or @Zoe in #ops: is `a < b && c` right? "
        "See https://acme.test/a?b=1&c=2 and the docs (https://acme.test/docs) @here "
        "ana@acme.test http://acme.test &lt;"
    )


def test_what_is_attached_is_named_and_told() -> None:
    log = {"id": "F1", "name": "trace.log", "mimetype": "text/plain", "size": 12}
    message = read_one(reply("see this", subtype="file_share", files=[log, {"id": "F2", "size": "x"}, {}, 7]))
    assert message.text == "see this\n(with trace.log, a file)"
    assert message.attachments == (
        Attachment("F1", "trace.log", "text/plain", 12),
        Attachment("F2", "a file"),
    )
    alone = read_one(reply("", subtype="file_share", files=[log]))
    assert alone.text == "(with trace.log)"
    stop = read_one(reply("stop", subtype="file_share", files=[log]))
    assert (stop.text, stop.attachments) == ("", ())


# Edits


def test_an_edit_revises_the_earlier_message() -> None:
    before = said("<@U0BOT> fix the logn loop")
    now = said("<@U0BOT> fix the login loop", edited={"user": "U1ANA", "ts": "1700000200.000000"})
    message = read_one(changed(before, now))
    assert message.revises == read_one(before).key
    assert message.key != message.revises
    assert (message.text, message.sent) == ("fix the login loop", "1700000200.000300")
    assert message.thread == read_one(before).thread
    assert message.ref == read_one(before).ref
    assert not message.withdrawn


def test_an_unfolded_link_is_no_edit() -> None:
    before = reply("see <https://acme.test>")
    assert read(changed(before, before)) == ()


@pytest.mark.parametrize("before", [said("<@U0BOT> fix it"), reply("and this")])
def test_a_deleted_message_is_withdrawn(before: Json) -> None:
    message = read_one(deleted(before))
    assert message.withdrawn
    assert message.revises == read_one(before).key
    assert message.thread == read_one(before).thread
    assert message.author.name == "Ana"


def test_a_deleted_root_with_replies_is_withdrawn_too() -> None:
    before = said("<@U0BOT> fix it", thread_ts="1700000100.000200")
    tombstone = {**before, "user": "USLACKBOT", "subtype": "tombstone", "text": "This message was deleted."}
    message = read_one(changed(before, tombstone))
    assert message.withdrawn
    assert (message.revises, message.author.user) == (read_one(before).key, "U1ANA")


# The cheap filter


@pytest.mark.parametrize(
    "event",
    [
        said("lunch?"),
        said("ask <@U2BEN>"),
        said("<@U0BOT> hello", bot_id="B1"),
        said("<@U0BOT> hello", user="USLACKBOT"),
        reply("hello", bot_id="B0"),
        reply("hello", hidden=True),
        reply("<@U0BOT> has joined", subtype="channel_join"),
        reply("hello", subtype="bot_message", user=None),
        changed(reply("a", bot_id="B0"), reply("b", bot_id="B0")),
        changed(said("lunch?"), said("dinner?")),
        deleted(said("lunch?")),
        {"type": "reaction_added", "user": "U1ANA"},
        {**said("<@U0BOT> go"), "type": "app_mention", "bot_id": "B1"},
        {},
    ],
)
def test_what_is_not_said_to_us_is_not_kept(event: Json) -> None:
    assert not worth_keeping(callback(event), BOT)
    assert read(event) == ()


@pytest.mark.parametrize(
    "event",
    [
        said("<@U0BOT> go"),
        {**said("<@U0BOT> go"), "type": "app_mention"},
        reply("go on"),
        reply("go on", subtype="thread_broadcast"),
        direct("go"),
        changed(reply("go"), reply("stop")),
        changed(said("fix it"), said("<@U0BOT> fix it")),
        changed(said("<@U0BOT> fix it"), said("never mind")),
        deleted(reply("go")),
    ],
)
def test_what_is_said_to_us_or_in_a_thread_is_kept(event: Json) -> None:
    assert worth_keeping(callback(event), BOT)
    assert len(read(event)) == 1


def test_what_belongs_to_one_thread_shares_a_lane() -> None:
    root, answer = "1700000100.000200", "1700000300.000400"
    steer = said("also this", ts=answer, thread_ts=root)
    start = said("<@U0BOT> go")
    events = [start, steer, changed(start, start), changed(steer, steer), deleted(steer), deleted(start)]
    lanes = {lane("event", callback(event)) for event in events}
    assert lanes == {f"T1/C1DEV/{root}"} == {lane("action", click(root))}
    assert lane("event", callback(direct("go"))) not in lanes


# Commands and clicks


def slash(text: str, **more: Any) -> Json:
    return {
        "command": "/sandpiper",
        "team_id": "T1",
        "channel_id": "C1DEV",
        "user_id": "U1ANA",
        "user_name": "ana.alba",
        "text": text,
        "trigger_id": "13.37.abc",
        "response_url": "https://hooks.slack.test/commands/1",
        **more,
    }


def read_slash(text: str, **more: Any) -> Message:
    (message,) = parse.messages(delivery(slash(text, **more), "command"), BOT, {})
    return message


def test_a_slash_command_opens_a_thread_of_its_own() -> None:
    message = read_slash("fix the login loop repo=acme/web agent=codex")
    assert message.thread == ThreadKey("slack", "T1/C1DEV", "")
    assert message.key == "slack:T1/command/13.37.abc"
    assert (message.text, message.verb, message.addressed) == ("fix the login loop", None, True)
    assert message.options == {"repo": "acme/web", "agent": "codex"}
    assert message.author.name == "ana.alba"
    assert message.sent == "1700000300.500000"
    assert message.private == "https://hooks.slack.test/commands/1"


@pytest.mark.parametrize(
    ("text", "verb"), [("status", Verb.STATUS), ("stop", Verb.STOP), ("help", Verb.HELP), ("", Verb.HELP)]
)
def test_slash_verbs_are_answered_privately(text: str, verb: Verb) -> None:
    message = read_slash(text)
    assert message.verb is verb
    assert message.private


def click(root: str, action_id: str = "sandpiper_stop", **more: Any) -> Json:
    return {
        "type": "block_actions",
        "team": {"id": "T1", "domain": "acme"},
        "user": {"id": "U2BEN", "username": "ben", "team_id": "T1"},
        "container": {
            "type": "message",
            "message_ts": "1700000150.000250",
            "channel_id": "C1DEV",
            "thread_ts": root,
        },
        "trigger_id": "13.38.def",
        "response_url": "https://hooks.slack.test/actions/2",
        "actions": [{"action_id": action_id, "value": "17", "action_ts": "1700000200.000300"}],
        **more,
    }


def test_the_stop_button_stops_its_thread_and_says_which_turn_it_meant() -> None:
    (message,) = parse.messages(delivery(click("1700000100.000200"), "action"), BOT, NAMES)
    assert message.verb is Verb.STOP
    assert message.thread == ThreadKey("slack", "T1/C1DEV", "1700000100.000200")
    assert (message.author.name, message.options) == ("Ben", {"turn": "17"})
    assert message.sent == "1700000200.000300"


def test_other_buttons_say_nothing() -> None:
    assert parse.messages(delivery(click("1", "sandpiper_open"), "action"), BOT, NAMES) == ()


# Anything else


def test_authors_and_people_mentioned_can_be_named() -> None:
    assert people(delivery(callback(said("<@U0BOT> ask <@U2BEN>")))) == ("U1ANA", "U0BOT", "U2BEN")
    assert people(delivery(slash("ask <@U2BEN|ben>"), "command")) == ("U1ANA", "U2BEN")
    assert people(delivery(click("1"), "action")) == ("U2BEN",)


def test_what_no_store_can_hold_is_left_out_of_texts() -> None:
    assert read_one(direct("a\0b\ud800c")).text == "ab?c"


@pytest.mark.parametrize("body", [b"", b"[1]", b"{", b"\xff", b"[" * 100_000, b'{"a": ' + b"9" * 5000 + b"}"])
def test_what_is_not_a_json_object_is_undecodable(body: bytes) -> None:
    with pytest.raises(Undecodable):
        parse.messages(Delivery("slack", "1", "event", body, 0.0), BOT, NAMES)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
shapes = st.sampled_from(
    [
        callback(said("<@U0BOT> go")),
        callback(changed(reply("a"), reply("b"))),
        callback(deleted(reply("a"))),
        slash("go"),
        click("1"),
    ]
)


def damaged(body: Any, path: list[int], value: Any) -> Any:
    """The body with one value, somewhere inside, replaced."""
    if not isinstance(body, dict) or not path:
        return value
    key = sorted(body)[path[0] % len(body)]
    return {**body, key: damaged(body[key], path[1:], value)}


bodies = anything | st.builds(damaged, shapes, st.lists(st.integers(0, 20), min_size=1, max_size=3), anything)


@given(bodies, st.sampled_from(["event", "command", "action", "other"]))
def test_any_json_is_read_or_undecodable(body: Any, kind: str) -> None:
    try:
        people(delivery(body, kind))
        read_messages = parse.messages(delivery(body, kind), BOT, {})
    except Undecodable:
        return
    assert all(message.key and message.author.user and message.sent for message in read_messages)


@given(bodies.filter(lambda body: isinstance(body, dict)))
def test_the_filter_takes_any_object(body: Json) -> None:
    worth_keeping(body, BOT)
    assert {lane(kind, body).count("/") >= 2 for kind in ("event", "command", "action")} == {True}
