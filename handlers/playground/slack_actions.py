"""What people and the app do in a workspace: the state changes, and the app is told by events."""

import uuid
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace

from handlers.playground.changes import Changes
from handlers.playground.slack_shapes import (
    block_elements,
    changed_event,
    deleted_event,
    event_callback,
    find_action,
    mention_event,
    message_event,
    message_json,
    user_change_event,
)
from handlers.playground.slack_state import Json, Message, SlackError, User, Workspace


class Actions:
    """Changes a workspace. Every event goes to `send`, and every change is noted in `changes`."""

    def __init__(self, workspace: Workspace, changes: Changes, send: Callable[[Json], None]) -> None:
        self._workspace = workspace
        self._changes = changes
        self._send = send
        # Slack promises no order between the two events of one mention.
        self.mention_first = False
        # Of each message whose buttons were changed by an edit, what it showed with those before.
        self._replaced: dict[tuple[str, str], list[Json]] = {}

    def post(self, message: Message) -> Message:
        """Put a new message into its channel or thread.

        Raises SlackError `thread_not_found` where there is no such thread (what Slack's maintainers say of a
        deleted root, slackapi/bolt-js issue 2307), and `cannot_reply_to_message` under another reply.
        """
        self.check(message)
        _name_blocks(message.blocks)
        self._workspace.add(message)
        self._changes.note("posted", message.channel, message.ts)
        if message.visible_to is None:
            self._tell_of(message)
        return message

    def check(self, message: Message) -> None:
        """Whether it could be posted. Raises SlackError as `post` does."""
        if message.thread_ts is not None:
            self._check_root(message.channel, message.thread_ts)

    def edit(
        self,
        message: Message,
        editor: str,
        *,
        text: str | None = None,
        blocks: list[Json] | None = None,
        attachments: list[Json] | None = None,
        metadata: Json | None = None,
    ) -> None:
        """Change what is given; what is None stays as it was."""
        before = self._snapshot(message)
        if text is not None:
            message.text = text
        if blocks is not None:
            _name_blocks(blocks)
            if _action_ids(blocks) != _action_ids(message.blocks):
                self._replaced[message.channel, message.ts] = message.blocks
            message.blocks = blocks
        if attachments is not None:
            message.attachments = attachments
        if metadata is not None:
            message.metadata = metadata or None
        message.edited_by = editor
        message.edited_ts = self._workspace.new_ts()
        self._changes.note("edited", message.channel, message.ts)
        if message.visible_to is None:
            self._tell(message.channel, changed_event(self._workspace, message, before))

    def delete(self, message: Message) -> None:
        """Take a message away. A root that has replies stays as a tombstone, as in Slack."""
        before = self._snapshot(message)
        thread = self._workspace.thread(message.channel, message.ts)
        if message.thread_ts is None and len(thread) > 1:
            message.subtype = "tombstone"
            message.text = "This message was deleted."
            message.user = "USLACKBOT"
            message.blocks, message.attachments, message.files, message.metadata = [], [], [], None
            message.bot_id = message.client_msg_id = None
            event = changed_event(self._workspace, message, before)
            event["message"]["hidden"] = True
        else:
            self._workspace.remove(message)
            event = deleted_event(self._workspace, message.channel, before)
        self._changes.note("deleted", message.channel, message.ts)
        if message.visible_to is None:
            self._tell(message.channel, event)

    def deactivate(self, user: User, deactivated: bool) -> None:
        user = self._workspace.users[user.id] = replace(user, deleted=deactivated)
        self._send(event_callback(self._workspace, user_change_event(self._workspace, user)))

    def tell_uninstalled(self) -> None:
        revoked: Json = {"type": "tokens_revoked", "tokens": {"oauth": [], "bot": [self._workspace.bot.id]}}
        for event in (revoked, {"type": "app_uninstalled"}):
            self._send(event_callback(self._workspace, event))

    def pressed(
        self, message: Message, action_id: str, value: str | None, *, earlier: bool
    ) -> tuple[Message, Json]:
        """A message as it is shown where this button of its is pressed, and the button as a click reports it.

        With `earlier`, one that the last change of its buttons took away counts, too. Raises SlackError if
        there is none.
        """
        try:
            return message, find_action(message.blocks, action_id, value)
        except SlackError:
            before = self._replaced.get((message.channel, message.ts))
            if not earlier or before is None:
                raise
        return replace(message, blocks=before), find_action(before, action_id, value)

    def react(self, message: Message, name: str, user_id: str) -> None:
        users = message.reactions.setdefault(name, [])
        if user_id in users:
            raise SlackError("already_reacted")
        users.append(user_id)
        self._changes.note("reacted", message.channel, message.ts)

    def unreact(self, message: Message, name: str, user_id: str) -> None:
        users = message.reactions.get(name, [])
        if user_id not in users:
            raise SlackError("no_reaction")
        users.remove(user_id)
        if not users:
            del message.reactions[name]
        self._changes.note("reacted", message.channel, message.ts)

    def _check_root(self, channel_id: str, thread_ts: str) -> None:
        try:
            root = self._workspace.message(channel_id, thread_ts)
        except SlackError:
            raise SlackError("thread_not_found") from None
        if root.thread_ts is not None:
            raise SlackError("cannot_reply_to_message", "thread_ts is a reply, not the root of a thread")

    def _tell_of(self, message: Message) -> None:
        workspace = self._workspace
        events = [message_event(workspace, message)]
        is_mention = f"<@{workspace.bot.id}>" in message.text and message.user != workspace.bot.id
        if is_mention and workspace.channel(message.channel).kind != "im":
            events.append(mention_event(workspace, message))
            if self.mention_first:
                events.reverse()
        for event in events:
            self._tell(message.channel, event)

    def _tell(self, channel_id: str, event: Json) -> None:
        # An app hears only of the channels that it is in.
        if self._workspace.bot.id in self._workspace.channel(channel_id).members:
            self._send(event_callback(self._workspace, deepcopy(event)))

    def _snapshot(self, message: Message) -> Json:
        return deepcopy(message_json(self._workspace, message))


def _name_blocks(blocks: list[Json]) -> None:
    """Give a block_id and action_ids to what has none, as Slack does."""
    for block in blocks:
        block.setdefault("block_id", uuid.uuid4().hex[:5])
        for element in block_elements(block):
            if element.get("type") in ("button", "feedback_buttons", "icon_button"):
                element.setdefault("action_id", uuid.uuid4().hex[:5])


def _action_ids(blocks: list[Json]) -> list[str]:
    elements = (element for block in blocks for element in block_elements(block))
    return [element["action_id"] for element in elements if "action_id" in element]
