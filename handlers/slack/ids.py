"""The names that what comes in from Slack and what goes out to it have in common."""

from __future__ import annotations

from bot.models import ThreadKey

SURFACE = "slack"

# Kinds of delivery.
EVENT = "event"
COMMAND = "command"
ACTION = "action"

# Buttons.
STOP_ACTION = "sandpiper_stop"
OPEN_ACTION = "sandpiper_open"
APPROVE_ACTION = "sandpiper_approve"
DENY_ACTION = "sandpiper_deny"
RESET_ACTION = "sandpiper_reset"
ANSWER_ACTION = "sandpiper_answer"  # and "_" and the option's number: ids are unique in a block


# The metadata by which we find our own posts again.
MARKER = "sandpiper"


def scope_of(team: str, channel: str) -> str:
    return f"{team}/{channel}"


def channel_of(thread: ThreadKey) -> str:
    return thread.scope.partition("/")[2]


def message_key(team: str, channel: str, ts: str) -> str:
    """The same for a `message` and an `app_mention` event about one message."""
    return f"{SURFACE}:{team}/{channel}/{ts}"


def is_direct(channel: str) -> bool:
    return channel.startswith("D")


def means_something(action: str) -> bool:
    """Whether a click on this button says something to us; others only open a page."""
    return action in (STOP_ACTION, APPROVE_ACTION, DENY_ACTION, RESET_ACTION) or action.startswith(
        f"{ANSWER_ACTION}_"
    )
