"""How Slack writes people, channels, messages and events as JSON (docs.slack.dev, Events API and Web API)."""

import time
import uuid
from typing import Any

from handlers.playground.slack_state import Channel, Json, Message, SlackError, User, Workspace


def user_json(workspace: Workspace, user: User) -> Json:
    """As `users.info` gives it."""
    return {
        "id": user.id,
        "team_id": user.team_id or workspace.team.id,
        "name": user.name,
        "real_name": user.real_name,
        "deleted": user.deleted,
        "is_bot": user.is_bot,
        "is_app_user": False,
        "is_admin": False,
        "is_restricted": user.is_guest,
        "is_ultra_restricted": False,
        "is_stranger": bool(user.team_id),
        "tz": "Etc/UTC",
        "tz_offset": 0,
        "profile": {
            "real_name": user.real_name,
            "display_name": user.name,
            "email": f"{user.name}@{workspace.team.domain}.example",
        },
    }


def channel_json(workspace: Workspace, channel: Channel) -> Json:
    """As `conversations.info` gives it to the bot."""
    shape: Json = {
        "id": channel.id,
        "created": 1_700_000_000,
        "is_archived": channel.is_archived,
        "is_channel": channel.kind == "channel",
        "is_group": channel.kind == "group",
        "is_im": channel.kind == "im",
        "is_mpim": False,
        "is_private": channel.kind != "channel",
        "is_ext_shared": channel.is_ext_shared,
        "is_org_shared": False,
        "is_shared": channel.is_ext_shared,
        "context_team_id": workspace.team.id,
    }
    if channel.kind == "im":
        return shape | {"user": next(member for member in channel.members if member != workspace.bot.id)}
    return shape | {
        "name": channel.name,
        "name_normalized": channel.name,
        "is_general": False,
        "is_member": workspace.bot.id in channel.members,
        "num_members": len(channel.members),
        "topic": {"value": "", "creator": "", "last_set": 0},
        "purpose": {"value": "", "creator": "", "last_set": 0},
    }


def message_json(workspace: Workspace, message: Message, *, metadata: bool = False) -> Json:
    """As `conversations.replies` gives it; the app's metadata only when it is asked for."""
    shape: Json = {"type": "message", "user": message.user, "text": message.text, "ts": message.ts}
    shape["team"] = _team_of(workspace, message.user)
    if message.subtype:
        shape["subtype"] = message.subtype
    if message.client_msg_id:
        shape["client_msg_id"] = message.client_msg_id
    if message.bot_id:
        shape["bot_id"] = message.bot_id
    if message.bot_id == workspace.bot_id:
        shape |= {"app_id": workspace.app_id, "bot_profile": _bot_profile(workspace)}
    if message.blocks:
        shape["blocks"] = message.blocks
    if message.attachments:
        shape["attachments"] = message.attachments
    if message.files:
        shape |= {"files": message.files, "upload": False}
    if message.edited_ts:
        shape["edited"] = {"user": message.edited_by, "ts": message.edited_ts}
    if message.reactions:
        shape["reactions"] = [
            {"name": name, "users": list(users), "count": len(users)}
            for name, users in message.reactions.items()
        ]
    if metadata and message.metadata:
        shape["metadata"] = message.metadata
    return shape | _place_in_thread(workspace, message)


def event_callback(workspace: Workspace, event: Json) -> Json:
    """The outer part of every event; each has its own event_id."""
    channel_id = event.get("channel")
    return {
        "token": "not-verified",
        "team_id": workspace.team.id,
        "context_team_id": workspace.team.id,
        "context_enterprise_id": None,
        "api_app_id": workspace.app_id,
        "event": event,
        "type": "event_callback",
        "event_id": "Ev" + uuid.uuid4().hex[:10].upper(),
        "event_time": int(time.time()),
        "authorizations": [
            {
                "enterprise_id": None,
                "team_id": workspace.team.id,
                "user_id": workspace.bot.id,
                "is_bot": True,
                "is_enterprise_install": False,
            }
        ],
        "is_ext_shared_channel": bool(channel_id) and workspace.channel(str(channel_id)).is_ext_shared,
        "event_context": "4-" + uuid.uuid4().hex,
    }


def message_event(workspace: Workspace, message: Message) -> Json:
    shape = message_json(workspace, message) | {
        "channel": message.channel,
        "channel_type": workspace.channel(message.channel).kind,
        "event_ts": message.ts,
    }
    for name in ("reply_count", "reply_users_count", "latest_reply", "reply_users", "reactions"):
        shape.pop(name, None)
    return shape | _foreigner(workspace, message.user)


def mention_event(workspace: Workspace, message: Message) -> Json:
    names = ("user", "ts", "client_msg_id", "text", "team", "thread_ts", "parent_user_id", "blocks")
    whole = message_event(workspace, message)
    shape = {name: whole[name] for name in names if name in whole}
    return {
        "type": "app_mention",
        **shape,
        "channel": message.channel,
        "event_ts": message.ts,
    } | _foreigner(workspace, message.user)


def user_change_event(workspace: Workspace, user: User) -> Json:
    now = time.time()
    return {
        "type": "user_change",
        "user": user_json(workspace, user),
        "cache_ts": int(now),
        "event_ts": f"{now:.6f}",
    }


def changed_event(workspace: Workspace, message: Message, before: Json) -> Json:
    return _hidden_event(workspace, message.channel, "message_changed") | {
        "message": message_json(workspace, message),
        "previous_message": before,
    }


def deleted_event(workspace: Workspace, channel_id: str, before: Json) -> Json:
    return _hidden_event(workspace, channel_id, "message_deleted") | {
        "previous_message": before,
        "deleted_ts": before["ts"],
    }


def block_actions(
    workspace: Workspace, user: User, message: Message, action: Json, response_url: str
) -> Json:
    """The payload of a click."""
    channel = workspace.channel(message.channel)
    is_ephemeral = message.visible_to is not None
    container: Json = {
        "type": "message",
        "message_ts": message.ts,
        "channel_id": channel.id,
        "is_ephemeral": is_ephemeral,
    }
    if message.thread_ts:
        container["thread_ts"] = message.thread_ts
    payload: Json = {
        "type": "block_actions",
        "user": {
            "id": user.id,
            "username": user.name,
            "name": user.name,
            "team_id": user.team_id or workspace.team.id,
        },
        "api_app_id": workspace.app_id,
        "token": "not-verified",
        "container": container,
        "trigger_id": _trigger_id(),
        "team": {"id": workspace.team.id, "domain": workspace.team.domain},
        "enterprise": None,
        "is_enterprise_install": False,
        "channel": {"id": channel.id, "name": "directmessage" if channel.kind == "im" else channel.name},
        "state": {"values": {}},
        "response_url": response_url,
        "actions": [action | {"action_ts": workspace.new_ts()}],
    }
    if not is_ephemeral:
        payload["message"] = message_json(workspace, message)
    return payload


def slash_command(
    workspace: Workspace, user: User, channel: Channel, command: str, text: str, response_url: str
) -> Json:
    """The payload of a slash command; Slack never tells of a thread here."""
    return {
        "token": "not-verified",
        "team_id": workspace.team.id,
        "team_domain": workspace.team.domain,
        "channel_id": channel.id,
        "channel_name": "directmessage" if channel.kind == "im" else channel.name,
        "user_id": user.id,
        "user_name": user.name,
        "command": command,
        "text": text,
        "api_app_id": workspace.app_id,
        "is_enterprise_install": "false",
        "response_url": response_url,
        "trigger_id": _trigger_id(),
    }


def find_action(blocks: list[Json], action_id: str, value: str | None) -> Json:
    """The clickable element with this action_id (and value), as a click reports it.

    Raises SlackError if the message has none.
    """
    for block in blocks:
        for element in block_elements(block):
            if element.get("action_id") != action_id:
                continue
            for choice in _choices(element):
                if value is None or choice.get("value") == value:
                    names = ("text", "value", "style", "url")
                    return {
                        "type": element["type"],
                        "action_id": action_id,
                        "block_id": block["block_id"],
                    } | {name: choice[name] for name in names if name in choice}
    raise SlackError("action_not_found", f"the message has no element {action_id!r} with value {value!r}")


def block_elements(block: Json) -> list[Json]:
    """What can be clicked in a block, or stands beside what can."""
    inside = [*(block.get("elements") or []), *(block.get("actions") or []), block.get("accessory")]
    return [element for element in inside if isinstance(element, dict)]


def _choices(element: Json) -> list[Json]:
    if element["type"] == "feedback_buttons":
        return [element["positive_button"], element["negative_button"]]
    return [element]


def _place_in_thread(workspace: Workspace, message: Message) -> dict[str, Any]:
    if message.visible_to is not None:
        return {"thread_ts": message.thread_ts} if message.thread_ts else {}
    root, *replies = workspace.thread(message.channel, message.root_ts) or [message]
    if message.thread_ts:
        return {"thread_ts": message.thread_ts, "parent_user_id": root.user}
    if not replies:
        return {}
    people = list(dict.fromkeys(reply.user for reply in replies))
    return {
        "thread_ts": message.ts,
        "reply_count": len(replies),
        "reply_users_count": len(people),
        "latest_reply": replies[-1].ts,
        "reply_users": people,
    }


def _hidden_event(workspace: Workspace, channel_id: str, subtype: str) -> Json:
    ts = workspace.new_ts()
    return {
        "type": "message",
        "subtype": subtype,
        "channel": channel_id,
        "channel_type": workspace.channel(channel_id).kind,
        "hidden": True,
        "ts": ts,
        "event_ts": ts,
    }


def _team_of(workspace: Workspace, user_id: str) -> str:
    user = workspace.users.get(user_id)
    return (user.team_id if user else "") or workspace.team.id


def _foreigner(workspace: Workspace, user_id: str) -> Json:
    team_id = _team_of(workspace, user_id)
    return {} if team_id == workspace.team.id else {"user_team": team_id, "source_team": team_id}


def _bot_profile(workspace: Workspace) -> Json:
    return {
        "id": workspace.bot_id,
        "app_id": workspace.app_id,
        "name": workspace.bot.real_name,
        "deleted": False,
        "team_id": workspace.team.id,
    }


def _trigger_id() -> str:
    return f"{time.time_ns() // 1_000_000}.{uuid.uuid4().int % 10**12}.{uuid.uuid4().hex}"
