"""Files that the app uploads and shares (docs.slack.dev, "Working with files").

Three calls: files.getUploadURLExternal gives an address, the raw bytes are posted there, and
files.completeUploadExternal shares them. Its answer comes before the message does.
"""

import asyncio
import re
import secrets
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from urllib.parse import quote

from handlers.playground.slack_actions import Actions
from handlers.playground.slack_content import read_content, structured
from handlers.playground.slack_limits import ALT_TEXT_LIMIT
from handlers.playground.slack_state import Channel, Json, Message, SlackError, Workspace

MOST_FILES = 200
MOST_BYTES = 100_000_000  # what people can still open; the oldest make room

_CONVERSATION = re.compile(r"[CGD][A-Z0-9_]+")
# What is shown as a picture. Not by its name, and none that can carry a script.
_PICTURES = {
    b"\x89PNG\r\n\x1a\n": "image/png",
    b"\xff\xd8\xff": "image/jpeg",
    b"GIF87a": "image/gif",
    b"GIF89a": "image/gif",
}


@dataclass(slots=True)
class File:
    """`data` is None until it is uploaded. `shared`: files.completeUploadExternal was called for it."""

    id: str
    name: str
    length: int
    ticket: str
    title: str = ""
    data: bytes | None = None
    shared: bool = False
    user: str = ""  # whose it is, "": the app's

    @property
    def picture(self) -> str:
        """The media type of a picture, or ""."""
        data = self.data or b""
        return next((kind for magic, kind in _PICTURES.items() if data.startswith(magic)), "")


class Files:
    """The files of a workspace. `largest`: bytes. `delay`: seconds until a shared file is to be seen."""

    def __init__(
        self,
        workspace: Workspace,
        actions: Actions,
        *,
        joined: Callable[[Json], Channel],
        url: Callable[[], str],
        largest: int,
        unsupported_blocks: Collection[str],
    ) -> None:
        self._workspace = workspace
        self._actions = actions
        self._joined = joined
        self._url = url
        self._largest = largest
        self._unsupported_blocks = unsupported_blocks
        self._files: dict[str, File] = {}
        self.delay = 0.0
        self.drops_to_come = 0
        self.methods: dict[str, Callable[[Json], Json]] = {
            "files.getUploadURLExternal": self._get_upload_url,
            "files.completeUploadExternal": self._complete_upload,
            "files.info": self._info,
        }

    def get(self, id: str) -> File | None:
        """A file that was shared and is still kept."""
        file = self._files.get(id)
        return file if file is not None and file.shared else None

    def attach(self, user: str, name: str, data: bytes) -> Json:
        """A person's own file, as it stands in their message."""
        file = File("F" + secrets.token_hex(5).upper(), name, len(data), "", name, data, True, user)
        self._files[file.id] = file
        self._make_room()
        return self._json(file)

    def take(self, ticket: str, data: bytes) -> None:
        """What is posted to an address that was given."""
        file = next((one for one in self._files.values() if one.ticket == ticket), None)
        if file is None or file.data is not None:
            raise SlackError("upload_not_found")
        if len(data) != file.length:
            raise SlackError("length_mismatch")
        file.data = data
        self._make_room()

    def _get_upload_url(self, arguments: Json) -> Json:
        name, length = str(arguments.get("filename") or ""), _number(arguments.get("length"))
        if not name or not length:
            raise SlackError("missing_argument")
        if length > self._largest:
            raise SlackError("file_upload_size_restricted")
        if len(str(arguments.get("alt_txt") or "")) > ALT_TEXT_LIMIT:
            raise SlackError("alt_txt_too_large")
        file = File("F" + secrets.token_hex(5).upper(), name, length, secrets.token_urlsafe(16))
        self._files[file.id] = file
        return {"upload_url": f"{self._url()}/upload/v1/{file.ticket}", "file_id": file.id}

    def _complete_upload(self, arguments: Json) -> Json:
        files = [self._uploaded(one) for one in _listed(arguments.get("files"))]
        channel_id = str(arguments.get("channel_id") or "")
        if channel_id:
            self._share(files, channel_id, arguments)
        for file in files:
            file.shared = True
        return {"files": [self._json(file) | {"shares": {}} for file in files]}

    def _info(self, arguments: Json) -> Json:
        file = self.get(str(arguments.get("file") or ""))
        if file is None:
            raise SlackError("file_not_found")
        return {"file": self._json(file)}

    def _uploaded(self, given: Json) -> File:
        file = self._files.get(str(given.get("id") or ""))
        if file is None or file.data is None or file.shared:
            raise SlackError("file_not_found")
        file.title = str(given.get("title") or file.name)
        return file

    def _share(self, files: list[File], channel_id: str, arguments: Json) -> None:
        if not _CONVERSATION.fullmatch(channel_id):
            raise SlackError("invalid_arguments", "channel_id must be that of a conversation")
        channel = self._joined({"channel": channel_id})
        comment = str(arguments.get("initial_comment") or "")
        blocks: list[Json] = []
        if not comment and arguments.get("blocks"):
            blocks = read_content(arguments, unsupported=self._unsupported_blocks).blocks or []
            if any(block["type"] == "markdown" for block in blocks):
                raise SlackError("internal_error")  # slackapi/python-slack-sdk issue 1756
        message = Message(
            channel.id,
            "",
            self._workspace.bot.id,
            comment,
            thread_ts=arguments.get("thread_ts") or None,
            blocks=blocks,
            files=[self._json(file) for file in files],
            bot_id=self._workspace.bot_id,
            subtype="file_share",
        )
        self._actions.check(message)
        if self.drops_to_come:
            self.drops_to_come -= 1
        elif self.delay:
            asyncio.get_running_loop().call_later(self.delay, self._post, message)
        else:
            self._post(message)

    def _post(self, message: Message) -> None:
        message.ts = self._workspace.new_ts()
        self._actions.post(message)

    def _json(self, file: File) -> Json:
        return {
            "id": file.id,
            "created": int(time.time()),
            "name": file.name,
            "title": file.title,
            "mimetype": file.picture,
            "filetype": "",
            "size": file.length,
            "user": file.user or self._workspace.bot.id,
            "mode": "hosted",
            "url_private": self._private(file),
            "url_private_download": self._private(file),
        }

    def _private(self, file: File) -> str:
        return f"{self._url()}/files-pri/{file.id}/{quote(file.name, safe='')}"

    def _make_room(self) -> None:
        kept = [file for file in self._files.values() if file.data is not None]
        total = sum(file.length for file in kept)
        while kept and (len(kept) > MOST_FILES or total > MOST_BYTES):
            oldest = kept.pop(0)
            total -= oldest.length
            del self._files[oldest.id]


def _listed(value: object) -> list[Json]:
    files = structured(value)
    if not isinstance(files, list) or not files or not all(isinstance(one, dict) for one in files):
        raise SlackError("invalid_arguments", "files must be a list of objects")
    return files


def _number(value: object) -> int:
    try:
        return max(0, int(str(value)))
    except ValueError:
        return 0
