"""What a delivery from Slack says: stored JSON in, messages out. Pure.

Shapes: docs.slack.dev "Events API", "message event", "Slash commands" and "block_actions payload".
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

from bot.errors import Undecodable
from bot.models import Attachment, Delivery, Identity, Message, MessageRef, ThreadKey, Verb
from handlers.commands import Words, parse_words
from handlers.slack.ids import (
    ACTION,
    APPROVE_ACTION,
    COMMAND,
    DENY_ACTION,
    EVENT,
    RESET_ACTION,
    STOP_ACTION,
    SURFACE,
    is_direct,
    means_something,
    message_key,
    scope_of,
)
from handlers.slack.text import mentions, mentions_user, plain, without_mention

Json = dict[str, Any]

CHANGED = "message_changed"
DELETED = "message_deleted"
# Other subtypes are joins, topics, bots and the like. A message without one is a person's.
SAID = ("", "file_share", "thread_broadcast")
SLACKBOT = "USLACKBOT"  # speaks for Slack itself
TOMBSTONE = "tombstone"  # a deleted message that has replies: Slack reports it as changed


def worth_keeping(body: Json, bot_user: str) -> bool:
    """The cheap filter before the inbox: is this event somebody talking to us, or in a thread?

    Left out are chatter at the top of a channel that does not name us, machines, and Slack's own notices.
    """
    event = _object(body.get("event"))
    kind = _text(event, "type")
    if kind == "app_mention":
        return not _by_machine(event)
    if kind != "message":
        return False
    subtype = _text(event, "subtype")
    if subtype in (CHANGED, DELETED):
        said = _object(event.get("previous_message")) or _object(event.get("message"))
        words = _text(said, "text") + _text(_object(event.get("message")), "text")
    else:
        if subtype not in SAID or event.get("hidden"):
            return False
        said, words = event, _text(event, "text")
    if _by_machine(said):
        return False
    return _is_reply(said) or is_direct(_text(event, "channel")) or mentions_user(words, bot_user)


def lane(kind: str, body: Json) -> str:
    """The thread, as far as it shows: "team/channel/ts". Deliveries of one lane are handled in turn."""
    team = _team_if_named(body)
    if kind == COMMAND:
        return f"{team}/{_text(body, 'channel_id')}/{_text(body, 'trigger_id')}"
    if kind == ACTION:
        return f"{scope_of(team, _action_channel(body))}/{_action_thread(body)}"
    event = _object(body.get("event"))
    said = _object(event.get("previous_message")) or _object(event.get("message")) or event
    root = _text(said, "thread_ts") or _text(said, "ts") or _text(event, "deleted_ts")
    return f"{scope_of(team, _text(event, 'channel'))}/{root}"


def people(delivery: Delivery) -> tuple[str, ...]:
    """The ids of the users whose names `messages` can use: authors first, then who is mentioned.

    Raises Undecodable.
    """
    body = read(delivery)
    event = _object(body.get("event"))
    versions = (event, _object(event.get("message")), _object(event.get("previous_message")))
    authors = [_text(_object(version.get("edited")), "user") for version in versions]
    authors += [_text(version, "user") for version in versions]
    authors += [_text(body, "user_id"), _text(_object(body.get("user")), "id")]
    mentioned = [user for said in (*versions, body) for user in mentions(_text(said, "text"))]
    return tuple(dict.fromkeys(user for user in (*authors, *mentioned) if user not in ("", SLACKBOT)))


def messages(delivery: Delivery, bot_user: str, names: Mapping[str, str]) -> tuple[Message, ...]:
    """What was said; nothing when it is not for us. `names`: user id → name. Raises Undecodable."""
    body = read(delivery)
    reading = _Reading(body, bot_user, names)
    if delivery.kind == EVENT:
        return reading.event(_object(body.get("event")))
    if delivery.kind == COMMAND:
        return reading.command(delivery)
    if delivery.kind == ACTION:
        return reading.action()
    raise Undecodable(f"Slack deliveries have no kind {delivery.kind!r}.")


@dataclass(frozen=True, slots=True)
class _Reading:
    body: Json
    bot_user: str
    names: Mapping[str, str]

    def event(self, event: Json) -> tuple[Message, ...]:
        if not worth_keeping(self.body, self.bot_user):
            return ()
        subtype = _text(event, "subtype")
        if subtype == CHANGED:
            return self._changed(event)
        if subtype == DELETED:
            return (self._withdrawn(event, _object(event.get("previous_message"))),)
        channel = _needed(event, "channel")
        return (self._said(event, channel, named=_text(event, "type") == "app_mention"),)

    def _said(self, event: Json, channel: str, *, named: bool = False) -> Message:
        team, ts, raw = _team(self.body), _needed(event, "ts"), _text(event, "text")
        words = self._words(raw)
        return Message(
            key=message_key(team, channel, ts),
            thread=ThreadKey(SURFACE, scope_of(team, channel), _text(event, "thread_ts") or ts),
            author=self._person(_needed(event, "user")),
            sent=ts,
            text=words.text if words.verb else _with_files(words.text, event),
            ref=MessageRef(SURFACE, channel, ts),
            addressed=named or is_direct(channel) or mentions_user(raw, self.bot_user),
            verb=words.verb,
            mode=words.mode,
            options=words.options,
            attachments=() if words.verb else _attached(event),
        )

    def _changed(self, event: Json) -> tuple[Message, ...]:
        now, before = _object(event.get("message")), _object(event.get("previous_message"))
        if _text(now, "subtype") == TOMBSTONE:
            return (self._withdrawn(event, before),)
        # A preview that Slack unfolds below a link changes the message too, but nobody's words.
        if (not before and not now.get("edited")) or _text(now, "text") == _text(before, "text"):
            return ()
        message = self._said(now, _needed(event, "channel"))
        at = _needed(event, "event_ts")
        editor = _text(_object(now.get("edited")), "user")
        if editor and editor != message.author.user:
            message = replace(message, author=self._person(editor))
        return (replace(message, key=f"{message.key}~{at}", sent=at, revises=message.key),)

    def _withdrawn(self, event: Json, gone: Json) -> Message:
        team, channel = _team(self.body), _needed(event, "channel")
        ts = _text(gone, "ts") or _needed(event, "deleted_ts")
        at = _needed(event, "event_ts")
        return Message(
            key=f"{message_key(team, channel, ts)}~{at}",
            thread=ThreadKey(SURFACE, scope_of(team, channel), _text(gone, "thread_ts") or ts),
            author=self._person(_needed(gone, "user")),
            sent=at,
            text="",
            revises=message_key(team, channel, ts),
            withdrawn=True,
        )

    def command(self, delivery: Delivery) -> tuple[Message, ...]:
        """`/sandpiper …`. Slack allows it outside threads only: a task opens a thread of its own."""
        team, channel = _team(self.body), _needed(self.body, "channel_id")
        words = self._words(_text(self.body, "text"))
        return (
            Message(
                key=f"{SURFACE}:{team}/command/{_needed(self.body, 'trigger_id')}",
                thread=ThreadKey(SURFACE, scope_of(team, channel), ""),
                author=self._person(_needed(self.body, "user_id"), _text(self.body, "user_name")),
                sent=f"{delivery.received_at:.6f}",
                text=words.text,
                addressed=True,
                verb=words.verb or (None if words.text or words.options else Verb.HELP),
                mode=words.mode,
                options=words.options,
                private=_text(self.body, "response_url"),
            ),
        )

    def action(self) -> tuple[Message, ...]:
        """A click on a button. It carries what it is about, since an old message may still show one."""
        actions = self.body.get("actions")
        clicked = [_object(item) for item in actions] if isinstance(actions, list) else []
        button = next((item for item in clicked if means_something(_text(item, "action_id"))), None)
        if button is None:
            return ()
        verb, options = _clicked(_text(button, "action_id"), _text(button, "value"))
        team, user = _team(self.body), _object(self.body.get("user"))
        channel, root = _action_channel(self.body), _action_thread(self.body)
        if not (channel and (root or _object(self.body.get("container")).get("is_ephemeral") is True)):
            raise Undecodable("The click does not say which message it was on.")
        return (
            Message(
                key=f"{SURFACE}:{team}/action/{_needed(self.body, 'trigger_id')}",
                thread=ThreadKey(SURFACE, scope_of(team, channel), root),
                author=self._person(_needed(user, "id"), _text(user, "username") or _text(user, "name")),
                sent=_needed(button, "action_ts"),
                text="",
                addressed=True,
                verb=verb,
                options=options,
                private=_text(self.body, "response_url"),
            ),
        )

    def _words(self, raw: str) -> Words:
        return parse_words(plain(without_mention(raw, self.bot_user), self.names))

    def _person(self, user: str, known_as: str = "") -> Identity:
        return Identity(SURFACE, tenant_of(self.body), user, self.names.get(user) or known_as or user)


def _clicked(action: str, value: str) -> tuple[Verb, Mapping[str, str]]:
    if action == STOP_ACTION:
        return Verb.STOP, {"turn": value} if value else {}
    if action == APPROVE_ACTION:
        return Verb.APPROVE, {"ask": value}
    if action == DENY_ACTION:
        return Verb.DENY, {"ask": value}
    if action == RESET_ACTION:
        return Verb.SANDBOX, {"do": "reset", "number": value}
    return Verb.ANSWER, {"ask": value, "option": action.rpartition("_")[2]}


def _with_files(text: str, event: Json) -> str:
    """A message may be nothing but a file."""
    names = [file.name for file in _attached(event)]
    note = f"(with {', '.join(names[:10])}{', …' if names[10:] else ''})" if names else ""
    return "\n".join(part for part in (text, note) if part)


def _attached(event: Json) -> tuple[Attachment, ...]:
    files = event.get("files")
    return tuple(
        Attachment(
            _text(file, "id"),
            _text(file, "name") or _text(file, "title") or "a file",
            _text(file, "mimetype"),
            size if isinstance(size := file.get("size"), int) else 0,
        )
        for file in map(_object, files if isinstance(files, list) else ())
        if _text(file, "id")
    )


def _by_machine(said: Json) -> bool:
    return bool(said.get("bot_id")) or _text(said, "user") in ("", SLACKBOT)


def _is_reply(said: Json) -> bool:
    root = _text(said, "thread_ts")
    return root != "" and root != _text(said, "ts")


def tenant_of(body: Json) -> str:
    """Raises Undecodable."""
    return f"{SURFACE}:{_enterprise(body) or _team(body)}"


def _team(body: Json) -> str:
    """The workspace that the app was installed to, for any kind of delivery. Raises Undecodable."""
    if team := _team_if_named(body):
        return team
    raise Undecodable("The delivery names no Slack workspace.")


def _team_if_named(body: Json) -> str:
    return (
        _text(body, "team_id")
        or _text(_object(body.get("team")), "id")
        or _text(_object(body.get("user")), "team_id")  # an organisation's install names no team
    )


def _enterprise(body: Json) -> str:
    installs = body.get("authorizations")
    first = _object(installs[0]) if isinstance(installs, list) and installs else {}
    return (
        _text(body, "enterprise_id")
        or _text(_object(body.get("enterprise")), "id")
        or _text(first, "enterprise_id")
    )


def _action_channel(body: Json) -> str:
    container = _object(body.get("container"))
    return _text(container, "channel_id") or _text(_object(body.get("channel")), "id")


def _action_thread(body: Json) -> str:
    """ "": it was on what one person alone sees outside of threads, under which nothing can be said."""
    container, shown = _object(body.get("container")), _object(body.get("message"))
    root = "" if container.get("is_ephemeral") is True else _text(container, "message_ts")
    return _text(container, "thread_ts") or _text(shown, "thread_ts") or root


def read(delivery: Delivery) -> Json:
    """The JSON object of a delivery. Raises Undecodable."""
    try:
        body = json.loads(delivery.body)
    except (ValueError, RecursionError) as error:
        raise Undecodable("The delivery is not JSON.") from error
    if not isinstance(body, dict):
        raise Undecodable("The delivery is not a JSON object.")
    return body


def _object(value: object) -> Json:
    return cast(Json, value) if isinstance(value, dict) else {}


def _text(values: Json, key: str) -> str:
    """A string field, "" when it is missing or something else, in characters that any store takes."""
    value = values.get(key)
    if not isinstance(value, str):
        return ""
    return value.replace("\0", "").encode("utf-8", "replace").decode()


def _needed(values: Json, key: str) -> str:
    if value := _text(values, key):
        return value
    raise Undecodable(f"The delivery has no {key!r} where Slack puts one.")
