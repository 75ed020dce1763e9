"""A Slack workspace on loopback that the real SDKs can't tell from Slack, as far as a bot goes.

It has the Web API, Socket Mode, events by HTTP, clicks and slash commands, and it keeps to Slack's limits.
Tests and the playground's page play the people through SlackPlayground.
"""

import contextlib
import secrets
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict
from types import MappingProxyType
from typing import Self, TypeVar

from starlette.applications import Starlette

from handlers.playground.changes import Changes
from handlers.playground.holds import Hold
from handlers.playground.server import LoopbackServer
from handlers.playground.slack_actions import Actions
from handlers.playground.slack_api import WebApi
from handlers.playground.slack_app import SCOPES, Call, SlackApp
from handlers.playground.slack_delivery import Deliveries
from handlers.playground.slack_envelopes import Delivery
from handlers.playground.slack_faults import Fault, Faults
from handlers.playground.slack_files import File
from handlers.playground.slack_limits import DEFAULT_RATES, FILE_BYTES, RateLimiter, Rates
from handlers.playground.slack_responses import Responses
from handlers.playground.slack_shapes import block_actions, slash_command
from handlers.playground.slack_state import (
    ACME,
    DEFAULT_CHANNELS,
    DEFAULT_USERS,
    SANDPIPER,
    Channel,
    Json,
    Message,
    SlackError,
    Team,
    User,
    Workspace,
    new_client_msg_id,
    rich_text_of,
)

Value = TypeVar("Value")


class SlackPlayground:
    """One workspace with one app.

    Serve `app` (a Starlette app) on loopback and set `url` to its address, or use `served`. The bot then
    needs `bot_token`, `app_token`, `signing_secret` and the API's base URL, `api_url`.

    What people do (`post`, `click` …) raises SlackError where Slack would not let them. `rates` are Slack's
    unless given (`NO_RATES` for none). `unsupported_blocks` are refused as `invalid_blocks`. With
    `request_url` events come by HTTP, else by Socket Mode. `ack_timeout`, `retry_delays` and `edit_window`
    (how long a message can be updated) are in seconds. `largest_file` is in bytes. `scopes` are the bot
    token's; only those for files are missed where they are not among them.
    """

    def __init__(
        self,
        *,
        team: Team = ACME,
        users: Iterable[User] = DEFAULT_USERS,
        channels: Iterable[Channel] = DEFAULT_CHANNELS,
        bot: User = SANDPIPER,
        bot_token: str | None = None,
        app_token: str | None = None,
        signing_secret: str | None = None,
        rates: Rates = DEFAULT_RATES,
        unsupported_blocks: Collection[str] = (),
        request_url: str | None = None,
        ack_timeout: float = 3.0,
        retry_delays: Sequence[float] = (0.0, 60.0, 300.0),
        edit_window: float | None = None,
        largest_file: int = FILE_BYTES,
        scopes: Collection[str] = SCOPES,
    ) -> None:
        self.bot_token = bot_token or f"xoxb-{secrets.token_hex(12)}"
        self.app_token = app_token or f"xapp-1-{secrets.token_hex(12)}"
        self.signing_secret = signing_secret or secrets.token_hex(16)
        self.workspace = Workspace(team, users, channels, bot)
        self.changes = Changes()
        self._url = ""
        self._faults = Faults()
        self._deliveries = Deliveries(
            self.changes,
            self.signing_secret,
            request_url=request_url,
            ack_timeout=ack_timeout,
            retry_delays=retry_delays,
        )
        self._actions = Actions(self.workspace, self.changes, self._deliveries.send_event)
        self._responses = Responses(
            self.workspace, self._actions, url=lambda: self.url, unsupported_blocks=unsupported_blocks
        )
        api = WebApi(
            self.workspace,
            self._actions,
            permalink=self._permalink,
            url=lambda: self.url,
            unsupported_blocks=unsupported_blocks,
            edit_window=edit_window,
            largest_file=largest_file,
        )
        self._files = api.files
        self._app = SlackApp(
            self.workspace,
            api,
            self._deliveries.sockets,
            self._responses,
            limiter=RateLimiter(rates),
            faults=self._faults,
            changes=self.changes,
            bot_token=self.bot_token,
            app_token=self.app_token,
            url=lambda: self.url,
            scopes=scopes,
        )

    # Where it is.

    @property
    def app(self) -> Starlette:
        """The ASGI app: `/api/{method}`, `/socket` and `/responses/…`."""
        return self._app.asgi

    @property
    def url(self) -> str:
        """The address that `app` is served at, without a slash at the end."""
        if not self._url:
            raise RuntimeError("set SlackPlayground.url to where its app is served, or use served()")
        return self._url

    @url.setter
    def url(self, url: str) -> None:
        self._url = url.rstrip("/")

    @property
    def api_url(self) -> str:
        """What `AsyncWebClient(base_url=…)` needs."""
        return f"{self.url}/api/"

    @property
    def bot_user_id(self) -> str:
        return self.workspace.bot.id

    @property
    def request_url(self) -> str | None:
        """Where events go by HTTP; None for Socket Mode."""
        return self._deliveries.request_url

    @request_url.setter
    def request_url(self, url: str | None) -> None:
        self._deliveries.request_url = url

    @contextlib.asynccontextmanager
    async def served(self, port: int = 0) -> AsyncIterator[Self]:
        """Serve the app on a loopback port of its own while inside."""
        async with LoopbackServer(self.app, port=port) as server:
            self.url = server.url
            try:
                yield self
            finally:
                await self.close()

    async def close(self) -> None:
        """Stop delivering."""
        await self._deliveries.close()

    # What people do.

    def post(
        self,
        user: str,
        channel: str,
        text: str,
        thread_ts: str | None = None,
        files: Mapping[str, bytes] = MappingProxyType({}),
    ) -> str:
        """Write a message as a person types it (`@sandpiper do this`), with files, and give its ts.

        A user that is a bot, but not ours, posts as the bots of other apps do.
        """
        self._check_member(user, channel)
        bot_id = "B" + user.removeprefix("U") if self.workspace.user(user).is_bot else None
        wire_text = self.workspace.typed(text)
        message = Message(
            channel,
            self.workspace.new_ts(),
            user,
            wire_text,
            thread_ts=thread_ts,
            blocks=rich_text_of(wire_text),
            bot_id=bot_id,
            client_msg_id=None if bot_id else new_client_msg_id(),
            files=[self._files.attach(user, name, data) for name, data in files.items()],
            subtype="file_share" if files else None,
        )
        return self._actions.post(message).ts

    def edit(self, user: str, channel: str, ts: str, text: str) -> None:
        """Change one's own message."""
        message = self._own_message(user, channel, ts, "cant_update_message")
        wire_text = self.workspace.typed(text)
        self._actions.edit(message, user, text=wire_text, blocks=rich_text_of(wire_text))

    def delete(self, user: str, channel: str, ts: str) -> None:
        """Delete one's own message; a root with replies leaves a tombstone."""
        self._actions.delete(self._own_message(user, channel, ts, "cant_delete_message"))

    def deactivate(self, user: str, deactivated: bool = True) -> None:
        """An admin takes somebody's account away, or gives it back."""
        self._actions.deactivate(self.workspace.user(user), deactivated)

    def uninstall(self) -> None:
        """Remove the app from the workspace: its token is of no use any more."""
        self._app.removed = True
        self._actions.tell_uninstalled()

    def react(self, user: str, channel: str, ts: str, name: str) -> None:
        """Put an emoji on a message; the bot is not told, it does not subscribe to that."""
        self._check_member(user, channel)
        self._actions.react(self.workspace.message(channel, ts), name, user)

    async def click(
        self,
        user: str,
        channel: str,
        ts: str,
        action_id: str,
        value: str | None = None,
        *,
        earlier: bool = False,
    ) -> None:
        """Press a message's button and wait until the app has acknowledged it.

        `value` chooses among buttons with the same action_id. With `earlier` it may be one that an edit has
        just taken away: a person can press it while their client still shows it.

        Raises SlackError `operation_timeout` or `dispatch_failed` where a person would be told that it did
        not work. Nothing keeps a person from a button that is shown to others only: the app has to.
        """
        self._check_member(user, channel)
        message = self.workspace.any_message(channel, ts)
        if message.visible_to not in (None, user):
            raise SlackError("message_not_found")
        message, action = self._actions.pressed(message, action_id, value, earlier=earlier)
        response_url = self._responses.new_url(user, channel, ts)
        person = self.workspace.user(user)
        payload = block_actions(self.workspace, person, message, action, response_url)
        answer = await self._deliveries.ask("interactive", payload)
        if answer:
            self._responses.respond(user, channel, ts, answer)

    async def slash(self, user: str, channel: str, command: str, text: str = "") -> None:
        """Give a slash command and wait until the app has acknowledged it; what it says is posted.

        Raises SlackError as `click` does.
        """
        self._check_member(user, channel)
        payload = slash_command(
            self.workspace,
            self.workspace.user(user),
            self.workspace.channel(channel),
            command,
            self.workspace.typed(text),
            self._responses.new_url(user, channel),
        )
        answer = await self._deliveries.ask("slash_commands", payload)
        if answer:
            self._responses.respond(user, channel, None, answer)

    def direct_channel(self, user: str) -> str:
        """The id of a person's direct channel with the bot."""
        return self.workspace.direct_channel(user).id

    # What there is to see.

    def message(self, channel: str, ts: str) -> Message:
        return self.workspace.any_message(channel, ts)

    def messages(self, channel: str, thread_ts: str | None = None) -> list[Message]:
        """A thread with its root, or what stands in the channel itself; oldest first, none ephemeral."""
        if thread_ts is None:
            return self.workspace.roots(channel)
        return self.workspace.thread(channel, thread_ts)

    def ephemerals(self, user: str) -> list[Message]:
        """What only this person was shown, oldest first in each channel."""
        return [message for message in self.workspace.everything() if message.visible_to == user]

    def file(self, id: str) -> File | None:
        """A file that was shared, while there is room for it."""
        return self._files.get(id)

    def reactions(self, channel: str, ts: str) -> dict[str, list[str]]:
        """For each emoji on a message, who put it there."""
        return {name: list(users) for name, users in self.workspace.message(channel, ts).reactions.items()}

    def permalink(self, channel: str, ts: str) -> str:
        return self._permalink(self.workspace.message(channel, ts))

    def snapshot(self) -> Json:
        """Everything that a page shows, ready for JSON. `change` is the number to follow `changes` from."""
        return {
            "change": self.changes.number,
            "team": asdict(self.workspace.team),
            "bot": asdict(self.workspace.bot),
            "users": [asdict(user) for user in self.workspace.users.values()],
            "channels": [asdict(channel) for channel in self.workspace.channels.values()],
            "messages": [asdict(message) for message in self.workspace.everything()],
        }

    async def wait_for(self, predicate: Callable[[], Value | None], timeout: float = 5.0) -> Value:
        """Wait until `predicate` gives something true, asked after each change here, and give that.

        Raises TimeoutError after `timeout` seconds, with what there is to see.
        """
        return await self.changes.wait_for(predicate, timeout, self.describe)

    def describe(self) -> str:
        """The workspace in words, for whoever wonders why a test failed."""
        lines = self.workspace.describe()
        lines.append(f"{self.connections} sockets, {len(self.undelivered)} deliveries not acknowledged")
        calls = ", ".join(f"{call.method} {call.error}".strip() for call in self.calls[-8:])
        lines.append(f"last calls: {calls}")
        return "\n".join(lines)

    # How the app behaves.

    @property
    def calls(self) -> list[Call]:
        """The Web API calls that were made, the latest 5,000, oldest first."""
        return list(self._app.calls)

    def calls_of(self, method: str) -> list[Call]:
        return [call for call in self._app.calls if call.method == method]

    @property
    def deliveries(self) -> list[Delivery]:
        """What the app was to take, the latest 2,000, oldest first."""
        return list(self._deliveries.log)

    @property
    def undelivered(self) -> list[Delivery]:
        """What the app has not acknowledged."""
        return [delivery for delivery in self._deliveries.log if delivery.state != "acknowledged"]

    @property
    def connections(self) -> int:
        """How many sockets the app has open."""
        return self._deliveries.sockets.open

    async def verify_request_url(self) -> bool:
        """Does the app answer the challenge by which Slack checks a request URL?"""
        return await self._deliveries.verify_request_url()

    # What goes wrong on purpose. The upload of a file goes by the method "upload".

    @property
    def file_delay(self) -> float:
        """Seconds until a file that was shared stands in its thread; the app has its answer before."""
        return self._files.delay

    @file_delay.setter
    def file_delay(self, seconds: float) -> None:
        self._files.delay = seconds

    def drop_file_next(self, times: int = 1) -> None:
        """Answer that the next files are shared, and show them to nobody."""
        self._files.drops_to_come += times

    def fail_next(
        self,
        method: str,
        error: str,
        times: int = 1,
        *,
        status: int = 200,
        retry_after: int = 1,
        after: int = 0,
    ) -> None:
        """Refuse the next calls of a method, once `after` more went well.

        The error `ratelimited` comes as HTTP 429 with Retry-After.
        """
        self._faults.add(method, Fault(error, status, retry_after), times, after)

    def lose_answer_next(self, method: str, times: int = 1) -> None:
        """Let the next calls of a method take effect, and break the connection instead of answering."""
        self._faults.add(method, Fault(acts=True), times)

    def lose_request_next(self, method: str, times: int = 1) -> None:
        """Break the connection of the next calls of a method before they take effect."""
        self._faults.add(method, Fault(), times)

    def hold_next(self, method: str, containing: str = "", *, acted: bool = False) -> Hold:
        """Stop the next call of a method, with this text in one of its arguments, before it takes effect,
        or with `acted` before it is answered."""
        return self._app.hold_next(method, containing, acted=acted)

    def lose_ack_next(self, times: int = 1) -> None:
        """Overlook the app's next acknowledgements, by socket: Slack then hands the same over again."""
        self._deliveries.sockets.lose_acks += times

    def deliver_twice(self, times: int = 1) -> None:
        """Hand each of the next events over twice, with the same event_id."""
        self._deliveries.double_next += times

    def newest_first(self) -> contextlib.AbstractContextManager[None]:
        """Hold the events that come up inside, and deliver them at its end in reverse order."""
        return self._deliveries.newest_first()

    @property
    def mention_first(self) -> bool:
        """Whether a mention's `app_mention` comes before its `message`; Slack promises neither."""
        return self._actions.mention_first

    @mention_first.setter
    def mention_first(self, first: bool) -> None:
        self._actions.mention_first = first

    def rotate_connections(self) -> None:
        """Ask every socket to go, as Slack does every few hours; the SDK opens new ones."""
        self._deliveries.sockets.rotate()

    def cut_connections(self) -> None:
        """Break every socket without a word."""
        self._deliveries.sockets.cut()

    def _permalink(self, message: Message) -> str:
        link = f"{self.url}/archives/{message.channel}/p{message.ts.replace('.', '')}"
        return f"{link}?thread_ts={message.thread_ts}&cid={message.channel}" if message.thread_ts else link

    def _check_member(self, user: str, channel: str) -> None:
        self.workspace.user(user)
        if user not in self.workspace.channel(channel).members:
            raise SlackError("not_in_channel")

    def _own_message(self, user: str, channel: str, ts: str, refusal: str) -> Message:
        message = self.workspace.message(channel, ts)
        if message.user != user:
            raise SlackError(refusal)
        return message
