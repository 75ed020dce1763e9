"""Daytona on loopback, for the real SDK: its routes and models, with directories of this machine as boxes.

What it answers is made of the SDK's models, so it cannot drift from what the SDK reads. Rules of states as in
its API (apps/api/src/sandbox/services/sandbox.service.ts of v0.190).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
from aiohttp import BodyPartReader, web
from aiohttp.typedefs import Handler

from bot.errors import SandboxGone, SandboxNotRunning, SandboxUnreachable
from bot.models import SandboxState
from sandbox.remote_supervisor import DOOR_PORT
from tests.remote_boxes import DirectoryBox, free_port

KEY = "dtn_test"
ANOTHER_KEY = "dtn_another"
ORGANIZATIONS = {KEY: "org-1", ANOTHER_KEY: "org-2"}
SETTLED = ("started", "stopped", "archived", "paused", "error", "build_failed")


@dataclass
class Fault:
    """What becomes of the next `times` requests (-1: of all) whose "METHOD path" matches.

    status 0: the socket is closed without an answer. after: the work was done first. then: done beside the
    work, as soon as it has begun. says: that JSON, with 200.
    """

    pattern: str
    status: int = 0
    message: str = "as the test wants it"
    headers: Mapping[str, str] = field(default_factory=dict)
    times: int = 1
    after: bool = False
    then: Callable[[], Awaitable[None]] | None = None
    says: str = ""


class DaytonaServer:
    """`boxes`: the SDK's model of each, by id. `looks`: how often a box has to be asked for until a change of
    its state is done; 0 = at once. `page`: items of a list at once."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.boxes: dict[str, Any] = {}
        self.says_whose = True  # of which organization a key is
        self.tokens: dict[str, str] = {}
        self.asked: list[str] = []  # "METHOD path" of every request
        self.created: list[Any] = []  # what was asked for, as the SDK's model
        self.faults: list[Fault] = []
        self.url = ""
        self.looks = 0
        self.page = 100
        self.previews = True
        self.signed: dict[str, tuple[str, int, float]] = {}  # token → box, port, end
        self.later = 0.0  # seconds that its clock is ahead
        self.begun: Callable[[], Awaitable[None]] | None = None  # instead of a box's beginning
        self._made = 0
        self._coming: dict[str, tuple[int, Callable[[], Awaitable[None]]]] = {}
        directory.mkdir(parents=True, exist_ok=True)

    async def start(self, port: int = 0) -> None:
        app = web.Application(client_max_size=1 << 30, middlewares=[self._guarded])
        route = app.router.add_route
        box = "/api/sandbox/{id}"
        route("GET", "/api/api-keys/current", self._key)
        route("POST", "/api/sandbox", self._create)
        route("GET", "/api/sandbox", self._list)
        route("GET", box, self._get)
        route("DELETE", box, self._delete)
        route("POST", f"{box}/start", self._start)
        route("POST", f"{box}/recover", self._recover)
        route("POST", f"{box}/stop", self._stop)
        route("POST", f"{box}/network-settings", self._network)
        route("POST", f"{box}/last-activity", self._shown)
        route("POST", f"{box}/autostop/{{minutes}}", self._interval("auto_stop_interval"))
        route("POST", f"{box}/autoarchive/{{minutes}}", self._interval("auto_archive_interval"))
        route("POST", f"{box}/autodelete/{{minutes}}", self._interval("auto_delete_interval"))
        route("GET", f"{box}/ports/{{port}}/preview-url", self._preview_url)
        signed = f"{box}/ports/{{port}}/signed-preview-url"
        route("GET", signed, self._sign)
        route("POST", f"{signed}/{{token}}/expire", self._expire)
        route("POST", "/toolbox/{id}/process/execute", self._execute)
        route("POST", "/toolbox/{id}/files/bulk-upload", self._upload)
        route("POST", "/toolbox/{id}/files/bulk-download", self._download)
        route("*", "/preview/{id}/{port}{rest:.*}", self._preview)
        route("*", "/signed/{token}{rest:.*}", self._signed)
        route("*", "/elsewhere/{rest:.*}", self._elsewhere)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        port = port or free_port()
        await web.TCPSite(self._runner, "127.0.0.1", port).start()
        self.url = f"http://127.0.0.1:{port}"
        self._http = httpx.AsyncClient(trust_env=False, timeout=60)

    async def close(self) -> None:
        """Whatever still runs in its boxes ends too."""
        await self._http.aclose()
        await self._runner.cleanup()
        for id in list(self.boxes):
            with contextlib.suppress(SandboxGone):
                await self.box(id).stop()

    def fail(self, pattern: str, status: int = 0, **more: Any) -> None:
        self.faults.append(Fault(pattern, status, **more))

    def box(self, id: str) -> DirectoryBox:
        if id not in self.boxes:
            raise SandboxGone(f"Sandbox with ID or name {id} not found")
        return DirectoryBox(self.directory / id)

    async def vanish(self, id: str) -> None:
        """As if somebody had deleted it in the dashboard."""
        await self.box(id).delete()
        del self.boxes[id]

    async def halt(self, id: str) -> None:
        """As if it had stopped itself."""
        await self.box(id).stop()
        self.boxes[id].state = "stopped"

    # requests

    @web.middleware
    async def _guarded(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        said = f"{request.method} {request.path}"
        self.asked.append(said)
        if not request.path.startswith(("/preview/", "/signed/")) and not _organization(request):
            return _refused(401, "Invalid credentials")
        fault = next((f for f in self.faults if f.times and re.search(f.pattern, said)), None)
        if fault is None:
            return await self._answered(request, handler)
        fault.times -= 1
        if fault.then is not None:
            work = asyncio.ensure_future(self._answered(request, handler))
            await fault.then()
            return await work
        if fault.after:
            await self._answered(request, handler)
        if fault.says:
            return web.json_response(text=fault.says)
        if fault.status:
            return _refused(fault.status, fault.message, fault.headers)
        assert request.transport is not None
        request.transport.close()
        return web.Response()

    async def _answered(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except SandboxGone as error:
            return _refused(404, str(error))
        except SandboxNotRunning:
            return _refused(400, "no IP address found. Is the Sandbox started?")
        except SandboxUnreachable as error:
            return _refused(408, str(error))

    def _asked_for(self, request: web.Request) -> DirectoryBox:
        id = request.match_info["id"]
        if id in self.boxes and not self._may_see(request, self.boxes[id]):
            raise SandboxGone(f"Sandbox with ID or name {id} not found")
        return self.box(id)

    def _may_see(self, request: web.Request, box: Any) -> bool:
        return _organization(request) in ("", box.organization_id)

    async def _key(self, request: web.Request) -> web.Response:
        from daytona_api_client_async import ApiKeyList

        about = ApiKeyList(
            name="sandpiper",
            value="dtn_********",
            created_at=datetime(2026, 1, 1, tzinfo=UTC),
            permissions=["write:sandboxes", "delete:sandboxes"],
            last_used_at=None,
            expires_at=None,
            user_id="ops",
            organization_id=_organization(request) if self.says_whose else None,
        )
        return web.json_response(text=about.to_json())

    async def _shown(self, request: web.Request) -> web.Response:
        return web.json_response(self.boxes[self._asked_for(request).id].to_dict())

    async def _get(self, request: web.Request) -> web.Response:
        id = self._asked_for(request).id
        if id in self._coming:
            left, finish = self._coming.pop(id)
            if left > 1:
                self._coming[id] = (left - 1, finish)
            else:
                await finish()
        return await self._shown(request)

    async def _list(self, request: web.Request) -> web.Response:
        from daytona_api_client_async import ListSandboxesResponse, SandboxListItem

        wanted: Mapping[str, str] = json.loads(request.query.get("labels") or "{}")
        seen = [b for b in self.boxes.values() if self._may_see(request, b)]
        found = [b for b in seen if wanted.items() <= b.labels.items()]
        start = int(request.query.get("cursor") or 0)
        end = start + min(self.page, int(request.query.get("limit") or 100))
        items = [SandboxListItem.model_validate(b.model_dump()) for b in found[start:end]]
        more = str(end) if end < len(found) else None
        return web.json_response(ListSandboxesResponse(items=items, next_cursor=more).to_dict())

    async def _elsewhere(self, request: web.Request) -> web.Response:
        return web.Response(text="<html>Welcome</html>", content_type="text/html")

    # life

    async def _create(self, request: web.Request) -> web.Response:
        from daytona_api_client_async import CreateSandbox, Sandbox
        from daytona_api_client_async import SandboxState as State

        asked = CreateSandbox.from_dict(await request.json())
        self.created.append(asked)
        assert asked is not None
        port, self._made = free_port(), self._made + 1
        id = f"{secrets.token_hex(8)}-{port}"
        root = self.directory / id
        root.mkdir()
        about = {"labels": asked.labels or {}, "port": port, "env": asked.env or {}}
        (root / "box.json").write_text(json.dumps(about))
        self.boxes[id] = Sandbox(
            id=id,
            organization_id=_organization(request),
            name=asked.name or id,
            snapshot=asked.snapshot,
            user=asked.user or "daytona",
            env=asked.env or {},
            labels=asked.labels or {},
            public=bool(asked.public),
            network_block_all=bool(asked.network_block_all),
            network_allow_list=asked.network_allow_list,
            domain_allow_list=asked.domain_allow_list,
            kvm=False,
            target=asked.target or "us",
            cpu=asked.cpu or 1,
            gpu=0,
            memory=asked.memory or 1,
            disk=asked.disk or 3,
            state=State.CREATING,
            auto_stop_interval=15 if asked.auto_stop_interval is None else asked.auto_stop_interval,
            auto_archive_interval=asked.auto_archive_interval or 10080,
            auto_delete_interval=-1 if asked.auto_delete_interval is None else asked.auto_delete_interval,
            created_at=f"2026-01-01T00:00:00.{self._made:06d}Z",
            toolbox_proxy_url=f"{self.url}/toolbox",
        )
        await self._become(id, "creating", self._begun(id))
        return web.json_response(self.boxes[id].to_dict())

    async def _become(self, id: str, meanwhile: str, finish: Callable[[], Awaitable[None]]) -> None:
        """The state `meanwhile`, until it was looked at often enough."""
        if not self.looks:
            await finish()
            return
        self.boxes[id].state = meanwhile
        self.coming(id, self.looks, finish)

    def coming(self, id: str, looks: int, finish: Callable[[], Awaitable[None]]) -> None:
        """`finish` comes when the box was looked at so often."""
        self._coming[id] = (looks, finish)

    def _begun(self, id: str) -> Callable[[], Awaitable[None]]:
        async def finish() -> None:
            if self.begun is not None:
                await self.begun()
                return
            await self.box(id).start()
            self.boxes[id].state = "started"
            self.tokens[id] = secrets.token_hex(8)

        return finish

    def _refuse_change(self, id: str, *states: str) -> web.Response | None:
        state = self.boxes[id].state.value
        if state not in SETTLED and state not in states:
            return _refused(409, "Sandbox state change in progress")
        if state in ("error", "build_failed"):
            return _refused(400, "Sandbox is in an errored state")
        return None if state in states else _refused(400, "Sandbox is not in valid state")

    async def _start(self, request: web.Request) -> web.Response:
        id = self._asked_for(request).id
        if self.boxes[id].state != "started":
            if no := self._refuse_change(id, "stopped", "archived", "archiving", "paused"):
                return no
            back = "restoring" if self.boxes[id].state in ("archived", "archiving") else "starting"
            await self._become(id, back, self._begun(id))
        return await self._shown(request)

    async def _recover(self, request: web.Request) -> web.Response:
        id = self._asked_for(request).id
        if self.boxes[id].state != "error" or not self.boxes[id].recoverable:
            return _refused(400, "Sandbox is not in a recoverable state")
        self.boxes[id].error_reason = None
        await self._become(id, "starting", self._begun(id))
        return await self._shown(request)

    async def _stop(self, request: web.Request) -> web.Response:
        id = self._asked_for(request).id
        if no := self._refuse_change(id, "started", "paused"):
            return no

        async def finish() -> None:
            await self.halt(id)

        await self._become(id, "stopping", finish)
        return await self._shown(request)

    async def _delete(self, request: web.Request) -> web.Response:
        id = self._asked_for(request).id
        if self.boxes[id].state not in SETTLED:
            return _refused(409, "Sandbox state change in progress")
        self.boxes[id].state = "destroying"
        answer = self.boxes[id].to_dict()

        async def finish() -> None:
            await self.vanish(id)

        if self.looks:
            self._coming[id] = (self.looks, finish)
        else:
            await finish()
        return web.json_response(answer)

    def _interval(self, name: str) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def set_it(request: web.Request) -> web.Response:
            setattr(self.boxes[self._asked_for(request).id], name, int(request.match_info["minutes"]))
            return await self._shown(request)

        return set_it

    async def _network(self, request: web.Request) -> web.Response:
        from daytona_api_client_async import UpdateSandboxNetworkSettings

        asked = UpdateSandboxNetworkSettings.from_dict(await request.json())
        assert asked is not None
        box = self.boxes[self._asked_for(request).id]
        if asked.network_allow_list and asked.domain_allow_list:
            return _refused(400, "networkAllowList and domainAllowList are mutually exclusive")
        box.network_block_all = bool(asked.network_block_all)
        box.network_allow_list = asked.network_allow_list or None
        box.domain_allow_list = asked.domain_allow_list or None
        return await self._shown(request)

    # inside

    async def _execute(self, request: web.Request) -> web.Response:
        from daytona_toolbox_api_client_async import ExecuteRequest, ExecuteResponse

        asked = ExecuteRequest.from_dict(await request.json())
        assert asked is not None
        box = self._asked_for(request)
        # Boxes share this machine: each has a port of its own where the door would listen.
        ours = f"--host 127.0.0.1 --port {box.port}"
        command = asked.command.replace(f"--host 0.0.0.0 --port {DOOR_PORT}", ours)
        said = await box.run(command, timeout=asked.timeout or 60)
        return web.json_response(ExecuteResponse(exit_code=said.code, result=said.output).to_dict())

    async def _upload(self, request: web.Request) -> web.Response:
        box = self._asked_for(request)
        path = ""
        async for part in await request.multipart():
            assert isinstance(part, BodyPartReader)
            if (part.name or "").endswith(".path"):
                path = await part.text()
            else:
                await box.upload(bytes(await part.read()), path)
        return web.json_response({})

    async def _download(self, request: web.Request) -> web.Response:
        box = self._asked_for(request)
        await box._must_run()
        path = (await request.json())["paths"][0]
        mark = secrets.token_hex(16)
        head = f'--{mark}\r\nContent-Disposition: form-data; name="file"; filename="{path}"\r\n\r\n'
        body = head.encode() + Path(path).read_bytes() + f"\r\n--{mark}--\r\n".encode()
        return web.Response(body=body, headers={"Content-Type": f"multipart/form-data; boundary={mark}"})

    # the way to a port

    async def _preview_url(self, request: web.Request) -> web.Response:
        from daytona_api_client_async import PortPreviewUrl

        box = self._asked_for(request)
        if not self.previews:
            return _refused(403, "Previews are disabled for this organization")
        url = f"{self.url}/preview/{box.id}/{request.match_info['port']}"
        about = PortPreviewUrl(sandbox_id=box.id, url=url, token=self.tokens[box.id])
        return web.json_response(about.to_dict())

    async def _preview(self, request: web.Request) -> web.Response:
        box = self._asked_for(request)
        if request.headers.get("X-Daytona-Preview-Token") != self.tokens[box.id]:
            return web.Response(status=401)
        return await self._passed_on(request, box, int(request.match_info["port"]))

    async def _sign(self, request: web.Request) -> web.Response:
        from daytona_api_client_async import SignedPortPreviewUrl

        box = self._asked_for(request)
        port, seconds = int(request.match_info["port"]), int(request.query.get("expiresInSeconds", 60))
        if not self.previews:
            return _refused(403, "Previews are disabled for this organization")
        if not 0 < port < 65536:
            return _refused(400, "Invalid port")
        if not 1 <= seconds <= 86400:
            return _refused(400, "expiresInSeconds must be between 1 second and 24 hours")
        token = secrets.token_hex(8)
        self.signed[token] = (box.id, port, time.monotonic() + self.later + seconds)
        # There it is a host of its own: <port>-<token>.<the domain of its proxy>.
        url = f"{self.url}/signed/{token}/"
        about = SignedPortPreviewUrl(sandbox_id=box.id, port=port, token=token, url=url)
        return web.json_response(about.to_dict())

    async def _expire(self, request: web.Request) -> web.Response:
        box = self._asked_for(request)
        token, port = request.match_info["token"], int(request.match_info["port"])
        if self.signed.get(token, ())[:2] == (box.id, port):
            del self.signed[token]
        return web.Response()

    async def _signed(self, request: web.Request) -> web.Response:
        id, port, end = self.signed.get(request.match_info["token"], ("", 0, 0.0))
        if time.monotonic() + self.later >= end:
            return web.Response(status=401, text="unauthorized")
        return await self._passed_on(request, self.box(id), port)

    async def _passed_on(self, request: web.Request, box: DirectoryBox, port: int) -> web.Response:
        if await box.state() is not SandboxState.RUNNING:
            return web.Response(status=502)
        kept = {k: v for k, v in request.headers.items() if k.lower() not in ("host", "content-length")}
        inner = f"http://127.0.0.1:{box.port if port == DOOR_PORT else port}{request.match_info['rest']}"
        if request.query_string:
            inner += "?" + request.query_string
        try:
            got = await self._http.request(request.method, inner, headers=kept, content=await request.read())
        except httpx.HTTPError:
            return web.Response(status=502)
        drop = ("content-length", "transfer-encoding", "connection", "date", "server")
        headers = {k: v for k, v in got.headers.items() if k.lower() not in drop}
        return web.Response(status=got.status_code, body=got.content, headers=headers)


def _organization(request: web.Request) -> str:
    """ "": nobody's, as on the way to a port."""
    return ORGANIZATIONS.get(request.headers.get("Authorization", "").removeprefix("Bearer "), "")


def _refused(status: int, message: str, headers: Mapping[str, str] | None = None) -> web.Response:
    body = {"statusCode": status, "message": message, "source": "DAYTONA_API"}
    return web.json_response(body, status=status, headers=headers)
