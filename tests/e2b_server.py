"""E2B on loopback, for the real SDK: its API, and what answers in each box (`envd`), with directories of this
machine as boxes. What it reads and says goes through the SDK's own models and messages.

A box that pauses with its memory is one whose processes are halted; without, one whose processes end.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import re
import secrets
import signal
import struct
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote

import httpx
from aiohttp import ClientError, ClientSession, ClientWebSocketResponse, WSServerHandshakeError, web
from aiohttp.typedefs import Handler
from e2b.api.client.models import (
    ConnectSandboxV2,
    Error,
    ListedSandbox,
    NewSandboxV2,
    SandboxDetail,
    SandboxLifecycle,
    SandboxNetworkConfig,
    SandboxNetworkUpdateConfig,
    SandboxPauseRequest,
    SandboxState,
    SandboxTimeoutRequest,
)
from e2b.api.client.models import Sandbox as Connected
from e2b.api.client.models.sandbox_on_timeout import SandboxOnTimeout
from e2b.envd.process.process_pb import StartRequest, StartResponse

from sandbox.box import Box
from sandbox.e2b import Account, E2BProvider
from sandbox.remote import RemoteSandbox
from tests.remote_boxes import DirectoryBox, free_port

KEY = "e2b_test"
ENVD_PORT = "49983"
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
UNRESPONSIVE = "sandbox_snapshot_guest_agent_unresponsive"
NOT_FOUND = "The sandbox was not found"


class NearE2B(E2BProvider):
    """Its boxes share one machine, so each has a port of its own for the door."""

    def _sandbox(self, box: Box) -> RemoteSandbox:
        inherited = tuple(self._account.extra.get("envs", {}))
        port = int(box.id.rpartition("-")[2])
        return RemoteSandbox(
            box, self._http, port=port, host="127.0.0.1", inherited=inherited, ports=self._ports
        )


@dataclass
class Fault:
    """What becomes of requests whose "METHOD /path" matches `where`. status: the answer's; 0: the socket
    closes. after: once it was done. times: how often."""

    where: str
    status: int
    after: bool = False
    times: int = 1_000_000
    message: str = "as the test wants it"


@dataclass
class Kept:
    """A box as E2B knows it. frozen: it was paused with its memory. token, traffic: what its own and other
    ports want to see; traffic is "" where anybody may reach them."""

    box: DirectoryBox
    metadata: Mapping[str, str]
    started: datetime
    lifetime: int
    on_timeout: str
    auto_resume: bool
    network: dict[str, Any]
    traffic: str
    asked: dict[str, Any]  # what it was made with
    state: str = "running"
    envd: str = "0.6.7"
    frozen: bool = False
    token: str = field(default_factory=lambda: secrets.token_hex(8))
    live: set[asyncio.Transport] = field(default_factory=set)
    wakings: int = 0  # how often traffic has resumed it

    def about(self) -> dict[str, Any]:
        return {
            "template_id": "base",
            "sandbox_id": self.box.id,
            "client_id": "c",
            "started_at": self.started,
            "end_at": self.started + timedelta(seconds=self.lifetime),
            "cpu_count": 2,
            "memory_mb": 512,
            "disk_size_mb": 1024,
            "envd_version": self.envd,
            "state": SandboxState(self.state),
            "metadata": dict(self.metadata),
        }


class E2BServer:
    """`boxes`: by id. `asked`: "METHOD /path" of every request of the API. `quota`: how many may run.
    `wedged`: those whose memory cannot be restored."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.boxes: dict[str, Kept] = {}
        self.faults: list[Fault] = []
        self.asked: list[str] = []
        self.templates = {"base"}
        self.wedged: set[str] = set()
        self.quota = 1_000
        self.longest = 24 * 3600  # seconds that a box may live on end
        self.page = 100
        self.created: dict[str, str] = {}  # by their keys
        self.url = ""
        directory.mkdir(parents=True, exist_ok=True)

    def account(self, key: str = KEY, **more: Any) -> Account:
        """What leads here."""
        return Account(key, api_url=f"{self.url}/api", sandbox_url=f"{self.url}/box", **more)

    async def start(self, port: int = 0) -> None:
        app = web.Application(client_max_size=1 << 30, middlewares=[self._guarded])
        route = app.router.add_route
        route("POST", "/api/v2/sandboxes", self._create)
        route("GET", "/api/v2/sandboxes", self._list)
        route("GET", "/api/sandboxes/{id}", self._get)
        route("DELETE", "/api/sandboxes/{id}", self._delete)
        route("POST", "/api/v2/sandboxes/{id}/connect", self._connect)
        route("POST", "/api/sandboxes/{id}/pause", self._pause)
        route("POST", "/api/sandboxes/{id}/timeout", self._timeout)
        route("PUT", "/api/sandboxes/{id}/network", self._network)
        route("*", "/box{rest:.*}", self._traffic)
        self._runner = web.AppRunner(app, shutdown_timeout=0)
        await self._runner.setup()
        port = port or free_port()
        await web.TCPSite(self._runner, "127.0.0.1", port).start()
        self.url = f"http://127.0.0.1:{port}"
        self._http = httpx.AsyncClient(trust_env=False, timeout=60)

    async def close(self) -> None:
        for kept in self.boxes.values():
            if kept.frozen:
                _signal(kept.box, signal.SIGCONT)
        await self._http.aclose()
        await self._runner.cleanup()

    # what happens to boxes by itself

    async def end_of_life(self, id: str) -> None:
        """The box's time is over."""
        kept = self.boxes[id]
        if kept.on_timeout == "pause":
            await self._halt(kept, memory=True)
        else:
            await self.lose(id)

    async def lose(self, id: str) -> None:
        kept = self.boxes.pop(id)
        _cut(kept)  # first, as with a machine that ends: nobody in it tells that it does
        await kept.box.delete()

    async def _halt(self, kept: Kept, *, memory: bool) -> None:
        kept.state, kept.frozen = "paused", memory
        _cut(kept)
        if memory:
            _signal(kept.box, signal.SIGSTOP)
        else:
            await kept.box.stop()

    async def _wake(self, kept: Kept) -> None:
        if kept.frozen:
            _signal(kept.box, signal.SIGCONT)
        await kept.box.start()
        kept.state, kept.frozen = "running", False

    # the API

    @web.middleware
    async def _guarded(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        line = f"{request.method} {request.path}"
        if request.path.startswith("/api/"):
            self.asked.append(line)
            if request.headers.get("X-API-KEY") != KEY:
                return _error(401, "Invalid API key")
        fault = next((one for one in self.faults if one.times and re.search(one.where, line)), None)
        if fault is not None:
            fault.times -= 1
            if fault.after:
                await handler(request)
            return _error(fault.status, fault.message) if fault.status else _drop(request)
        try:
            return await handler(request)
        except ConnectionResetError:  # a box's end, as of a test, or the bot's
            return _drop(request)

    def _kept(self, request: web.Request) -> Kept:
        id = request.match_info["id"]
        if id not in self.boxes:
            raise web.HTTPNotFound(
                text=_text(404, f"sandbox {id} not found"), content_type="application/json"
            )
        return self.boxes[id]

    async def _create(self, request: web.Request) -> web.Response:
        asked = NewSandboxV2.from_dict(await request.json())
        about = asked.to_dict()
        if asked.template_id not in self.templates:
            return _error(404, f"template '{asked.template_id}' not found")
        if about.get("timeout", 0) > self.longest:
            return _error(400, f"Timeout cannot be greater than {self.longest // 3600} hours")
        key = request.headers.get("Idempotency-Key", secrets.token_hex(8))
        if key not in self.created:
            if sum(kept.state == "running" for kept in self.boxes.values()) >= self.quota:
                return _error(
                    429, f"you have reached the maximum number of concurrent sandboxes ({self.quota})"
                )
            self.created[key] = await self._made(about)
        return web.json_response(self._connection(self.boxes[self.created[key]]), status=201)

    async def _made(self, about: dict[str, Any]) -> str:
        port = free_port()
        id = f"{secrets.token_hex(8)}-{port}"
        root = self.directory / id
        root.mkdir()
        (root / "box.json").write_text(json.dumps({"labels": about["metadata"], "port": port}))
        box = DirectoryBox(root)
        await box.start()
        network = about.get("network") or {}
        self.boxes[id] = Kept(
            box,
            about["metadata"],
            BEGIN + timedelta(seconds=len(self.boxes)),
            about.get("timeout", 300),
            "pause" if about.get("autoPause") else "kill",
            (about.get("autoResume") or {}).get("enabled", False),
            {name: rule for name, rule in network.items() if name != "allowPublicTraffic"},
            "" if network.get("allowPublicTraffic", True) else secrets.token_hex(8),
            about,
        )
        return id

    def _connection(self, kept: Kept) -> dict[str, Any]:
        return Connected(
            "base",
            kept.box.id,
            "c",
            kept.envd,
            envd_access_token=kept.token,
            traffic_access_token=kept.traffic or None,
            domain="e2b.app",
        ).to_dict()

    async def _list(self, request: web.Request) -> web.Response:
        wanted = {
            unquote(name): unquote(value) for name, value in parse_qsl(request.query.get("metadata", ""))
        }
        found = [kept for kept in self.boxes.values() if wanted.items() <= kept.metadata.items()]
        newest_first = sorted(found, key=lambda kept: kept.started, reverse=True)
        begin = int(request.query.get("nextToken", 0))
        end = begin + min(self.page, int(request.query.get("limit", 100)))
        items = [ListedSandbox(**kept.about()).to_dict() for kept in newest_first[begin:end]]
        headers = {"x-next-token": str(end)} if end < len(found) else {}
        return web.json_response(items, headers=headers)

    async def _get(self, request: web.Request) -> web.Response:
        kept = self._kept(request)
        about = SandboxDetail(
            **kept.about(),
            envd_access_token=kept.token,
            domain="e2b.app",
            network=SandboxNetworkConfig.from_dict(kept.network),
            lifecycle=SandboxLifecycle(kept.auto_resume, SandboxOnTimeout(kept.on_timeout)),
        )
        return web.json_response(about.to_dict())

    async def _delete(self, request: web.Request) -> web.Response:
        await self.lose(self._kept(request).box.id)
        return web.Response(status=204)

    async def _connect(self, request: web.Request) -> web.Response:
        kept = self._kept(request)
        asked = ConnectSandboxV2.from_dict(await request.json())
        if kept.state == "running":
            kept.lifetime = max(kept.lifetime, asked.timeout or 0)
            return web.json_response(self._connection(kept))
        if kept.box.id in self.wedged and asked.memory is not False:
            told = {**Error(409, "its memory is broken").to_dict(), "error_code": UNRESPONSIVE}
            return web.json_response(told, status=409)
        kept.lifetime = asked.timeout or 300
        if kept.frozen and asked.memory is False:
            _signal(kept.box, signal.SIGCONT)
            await kept.box.stop()
        await self._wake(kept)
        return web.json_response(self._connection(kept), status=201)

    async def _pause(self, request: web.Request) -> web.Response:
        kept = self._kept(request)
        asked = SandboxPauseRequest.from_dict(await request.json())
        if kept.state != "running":
            return _error(409, "sandbox is already paused")
        await self._halt(kept, memory=asked.memory is not False)
        return web.Response(status=204)

    async def _timeout(self, request: web.Request) -> web.Response:
        kept = self._kept(request)
        asked = SandboxTimeoutRequest.from_dict(await request.json())
        if kept.state != "running":
            return _error(404, f"sandbox {kept.box.id} not found")
        if asked.timeout > self.longest:
            return _error(400, f"Timeout cannot be greater than {self.longest // 3600} hours")
        kept.lifetime = asked.timeout
        return web.Response(status=204)

    async def _network(self, request: web.Request) -> web.Response:
        kept = self._kept(request)
        kept.network = SandboxNetworkUpdateConfig.from_dict(await request.json()).to_dict()
        return web.Response(status=204)

    # what leads into a box

    async def _traffic(self, request: web.Request) -> web.StreamResponse:
        kept = self.boxes.get(request.headers.get("E2b-Sandbox-Id", ""))
        port = request.headers.get("E2b-Sandbox-Port", "")
        if kept is not None and kept.frozen and kept.auto_resume:
            kept.wakings += 1
            await self._wake(kept)
        if kept is None or kept.state != "running":
            return _error(502, NOT_FOUND)
        if port != ENVD_PORT and request.headers.get("E2b-Traffic-Access-Token", "") != kept.traffic:
            return _error(403, "Sandbox is secured with traffic access token.")
        assert isinstance(request.transport, asyncio.Transport)
        kept.live.add(request.transport)
        try:
            if port != ENVD_PORT:
                return await self._passed_on(request, port)
            return await self._envd(request, kept)
        finally:
            kept.live.discard(request.transport)

    async def _envd(self, request: web.Request, kept: Kept) -> web.StreamResponse:
        if request.match_info["rest"] == "/health":
            return web.Response(status=204)
        if request.headers.get("X-Access-Token") != kept.token:
            return _error(401, "unauthorized access")
        match request.method, request.match_info["rest"]:
            case "POST", "/process.Process/Start":
                return await self._run(request, kept)
            case "POST", "/files":
                return await self._write(request)
            case "GET", "/files":
                path = Path(request.query["path"])
                return web.FileResponse(path) if path.is_file() else _error(404, f"path '{path}' not found")
        return _error(404, "no such route")

    async def _run(self, request: web.Request, kept: Kept) -> web.StreamResponse:
        asked = StartRequest.from_json((await request.read())[5:])
        config = asked.process
        assert config is not None
        own = kept.asked.get("envVars", {})
        process = await asyncio.create_subprocess_exec(
            config.cmd,
            *config.args,
            env={**own, "PATH": kept.box.path, "HOME": str(kept.box.home), **config.envs},
            cwd=config.cwd or kept.box.home,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        try:
            answer = web.StreamResponse(headers={"Content-Type": "application/connect+json"})
            await answer.prepare(request)
            await answer.write(_event({"start": {"pid": process.pid}}))
            within = float(request.headers.get("Connect-Timeout-Ms", 3_600_000)) / 1000
            try:
                async with asyncio.timeout(within):
                    async for piece in _outputs(process):
                        await answer.write(_event({"data": piece}))
                    code = await process.wait()
            except TimeoutError:
                late = {"error": {"code": "deadline_exceeded", "message": "context deadline exceeded"}}
                await answer.write(_frame(2, json.dumps(late).encode()))
                return answer
            await answer.write(_event({"end": {"exitCode": code, "exited": True, "status": f"exit {code}"}}))
            await answer.write(_frame(2, b"{}"))
            return answer
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()

    async def _write(self, request: web.Request) -> web.Response:
        path = Path(request.query["path"])
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:  # noqa: ASYNC230 small files, and nobody else waits
            if request.content_type == "application/octet-stream":
                async for piece in request.content.iter_any():
                    file.write(piece)
            else:
                async for part in await request.multipart():
                    file.write(await part.read())  # type: ignore[union-attr]
        return web.json_response([{"name": path.name, "type": "file", "path": str(path)}])

    async def _passed_on(self, request: web.Request, port: str) -> web.StreamResponse:
        if request.headers.get("Upgrade", "").lower() == "websocket":
            return await self._websocket(request, port)
        kept = {k: v for k, v in request.headers.items() if k.lower() not in ("host", "content-length")}
        inner = f"http://127.0.0.1:{port}{request.match_info['rest']}"
        if request.query_string:
            inner += "?" + request.query_string
        try:
            got = await self._http.request(request.method, inner, headers=kept, content=await request.read())
        except httpx.HTTPError:
            return _error(502, "The sandbox is running but port is not open")
        drop = ("content-length", "transfer-encoding", "connection", "date", "server")
        headers = {k: v for k, v in got.headers.items() if k.lower() not in drop}
        return web.Response(status=got.status_code, body=got.content, headers=headers)

    async def _websocket(self, request: web.Request, port: str) -> web.StreamResponse:
        """Message by message, as a proxy may that reads them."""
        drop = ("host", "connection", "upgrade")
        kept = {
            k: v
            for k, v in request.headers.items()
            if k.lower() not in drop and not k.lower().startswith("sec-websocket-")
        }
        near = web.WebSocketResponse(autoping=True)
        async with ClientSession() as session:
            try:
                url = f"http://127.0.0.1:{port}{request.match_info['rest']}"
                far = await session.ws_connect(url, headers=kept)
            except WSServerHandshakeError as refused:
                mark = {k: v for k, v in (refused.headers or {}).items() if k.lower() == "x-sandpiper-door"}
                return web.Response(status=refused.status, headers=mark)
            except ClientError:
                return _error(502, "The sandbox is running but port is not open")
            await near.prepare(request)
            both = [asyncio.ensure_future(_relay(*ends)) for ends in ((near, far), (far, near))]
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            for task in both:
                task.cancel()
            await far.close()
            await near.close()
        return near


async def _relay(
    source: web.WebSocketResponse | ClientWebSocketResponse,
    target: web.WebSocketResponse | ClientWebSocketResponse,
) -> None:
    async for message in source:
        await target.send_bytes(message.data)


async def _outputs(process: asyncio.subprocess.Process) -> AsyncIterator[dict[str, str]]:
    """Both outputs as they come, until both have ended."""
    pieces: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue()

    async def pump(name: str, stream: asyncio.StreamReader | None) -> None:
        assert stream is not None
        while piece := await stream.read(1 << 16):
            pieces.put_nowait((name, piece))
        pieces.put_nowait((name, b""))

    pumps = [
        asyncio.ensure_future(pump(*of)) for of in (("stdout", process.stdout), ("stderr", process.stderr))
    ]
    try:
        ended = 0
        while ended < len(pumps):
            name, piece = await pieces.get()
            if piece:
                yield {name: base64.b64encode(piece).decode()}
            else:
                ended += 1
    finally:
        for task in pumps:
            task.cancel()


def _event(event: dict[str, Any]) -> bytes:
    message = StartResponse.from_json(json.dumps({"event": event}))
    return _frame(0, message.to_json().encode())


def _frame(flags: int, message: bytes) -> bytes:
    return struct.pack(">BI", flags, len(message)) + message


def _text(status: int, message: str) -> str:
    return json.dumps(Error(status, message).to_dict())


def _error(status: int, message: str) -> web.Response:
    return web.Response(status=status, text=_text(status, message), content_type="application/json")


def _drop(request: web.Request) -> web.Response:
    if request.transport is not None:
        request.transport.close()
    return web.Response()


def _cut(kept: Kept) -> None:
    for transport in tuple(kept.live):
        transport.abort()


def _signal(box: DirectoryBox, number: signal.Signals) -> None:
    for pid in box.processes():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
