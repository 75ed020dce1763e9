"""Daytona on loopback, for the real SDK: its routes and models, with directories of this machine as boxes."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
from aiohttp import BodyPartReader, web
from aiohttp.typedefs import Handler

from bot.errors import SandboxGone, SandboxNotRunning, SandboxUnreachable
from bot.models import SandboxState
from tests.remote_boxes import DirectoryBox, free_port

KEY = "dtn_test"


class DaytonaServer:
    """`boxes`: what its API says of each, by id."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.boxes: dict[str, dict[str, Any]] = {}
        self.tokens: dict[str, str] = {}
        self.url = ""
        self.fault = 0  # the status of every answer of the API and the toolbox; -1: the socket is closed
        self._made = 0
        directory.mkdir(parents=True, exist_ok=True)

    async def start(self) -> None:
        app = web.Application(client_max_size=1 << 30, middlewares=[self._guarded])
        route = app.router.add_route
        route("POST", "/api/sandbox", self._create)
        route("GET", "/api/sandbox", self._list)
        route("GET", "/api/sandbox/{id}", self._get)
        route("DELETE", "/api/sandbox/{id}", self._delete)
        route("POST", "/api/sandbox/{id}/start", self._start)
        route("POST", "/api/sandbox/{id}/recover", self._start)
        route("POST", "/api/sandbox/{id}/stop", self._stop)
        route("POST", "/api/sandbox/{id}/last-activity", self._get)
        route("POST", "/api/sandbox/{id}/autostop/{minutes}", self._autostop)
        route("GET", "/api/sandbox/{id}/ports/{port}/preview-url", self._preview_url)
        route("POST", "/toolbox/{id}/process/execute", self._execute)
        route("POST", "/toolbox/{id}/files/bulk-upload", self._upload)
        route("POST", "/toolbox/{id}/files/bulk-download", self._download)
        route("*", "/preview/{id}/{port}{rest:.*}", self._preview)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        port = free_port()
        await web.TCPSite(self._runner, "127.0.0.1", port).start()
        self.url = f"http://127.0.0.1:{port}"
        self._http = httpx.AsyncClient(trust_env=False, timeout=60)

    async def close(self) -> None:
        await self._http.aclose()
        await self._runner.cleanup()

    @web.middleware
    async def _guarded(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        preview = request.path.startswith("/preview/")
        if not preview and request.headers.get("Authorization") != f"Bearer {KEY}":
            return web.json_response({"message": "Unauthorized"}, status=401)
        if self.fault == -1 and not preview:
            assert request.transport is not None
            request.transport.close()
            return web.Response()
        if self.fault and not preview:
            return web.json_response({"message": "as the test wants it"}, status=self.fault)
        try:
            return await handler(request)
        except SandboxGone as error:
            return web.json_response({"message": str(error)}, status=404)
        except SandboxNotRunning:
            return web.json_response({"message": "Is the Sandbox started?"}, status=400)
        except SandboxUnreachable as error:
            return web.json_response({"message": str(error)}, status=408)

    def _box(self, request: web.Request) -> DirectoryBox:
        id = request.match_info["id"]
        if id not in self.boxes:
            raise SandboxGone(f"Sandbox {id} not found")
        return DirectoryBox(self.directory / id)

    async def _create(self, request: web.Request) -> web.Response:
        asked = await request.json()
        port = free_port()
        id = f"{secrets.token_hex(8)}-{port}"
        root = self.directory / id
        root.mkdir()
        (root / "box.json").write_text(json.dumps({"labels": asked["labels"], "port": port}))
        self._made += 1
        self.boxes[id] = {
            "id": id,
            "organizationId": "org",
            "name": id,
            "user": "daytona",
            "env": asked.get("env") or {},
            "labels": asked["labels"],
            "public": False,
            "networkBlockAll": False,
            "kvm": False,
            "target": "us",
            "cpu": 1,
            "gpu": 0,
            "memory": 1,
            "disk": 3,
            "state": "started",
            "autoStopInterval": asked.get("autoStopInterval", 15),
            "createdAt": f"2026-01-01T00:00:00.{self._made:06d}Z",
            "toolboxProxyUrl": f"{self.url}/toolbox",
        }
        await self._begin(DirectoryBox(root))
        return web.json_response(self.boxes[id])

    async def _begin(self, box: DirectoryBox) -> None:
        await box.start()
        self.boxes[box.id]["state"] = "started"
        self.tokens[box.id] = secrets.token_hex(8)

    async def _list(self, request: web.Request) -> web.Response:
        wanted: Mapping[str, str] = json.loads(request.query.get("labels") or "{}")
        items = [b for b in self.boxes.values() if wanted.items() <= b["labels"].items()]
        return web.json_response({"items": items, "nextCursor": None})

    async def _get(self, request: web.Request) -> web.Response:
        return web.json_response(self.boxes[self._box(request).id])

    async def _start(self, request: web.Request) -> web.Response:
        await self._begin(self._box(request))
        return await self._get(request)

    async def _stop(self, request: web.Request) -> web.Response:
        box = self._box(request)
        self.boxes[box.id]["state"] = "stopping"
        await box.stop()
        self.boxes[box.id]["state"] = "stopped"
        return await self._get(request)

    async def _delete(self, request: web.Request) -> web.Response:
        box = self._box(request)
        await box.delete()
        return web.json_response({**self.boxes.pop(box.id), "state": "destroyed"})

    async def _autostop(self, request: web.Request) -> web.Response:
        self.boxes[self._box(request).id]["autoStopInterval"] = int(request.match_info["minutes"])
        return await self._get(request)

    async def _preview_url(self, request: web.Request) -> web.Response:
        box = self._box(request)
        url = f"{self.url}/preview/{box.id}/{request.match_info['port']}"
        return web.json_response({"sandboxId": box.id, "url": url, "token": self.tokens[box.id]})

    async def _execute(self, request: web.Request) -> web.Response:
        asked = await request.json()
        said = await self._box(request).run(asked["command"], timeout=asked.get("timeout") or 60)
        return web.json_response({"exitCode": said.code, "result": said.output})

    async def _upload(self, request: web.Request) -> web.Response:
        box = self._box(request)
        path = ""
        async for part in await request.multipart():
            assert isinstance(part, BodyPartReader)
            if (part.name or "").endswith(".path"):
                path = await part.text()
            else:
                await box.upload(bytes(await part.read()), path)
        return web.json_response({})

    async def _download(self, request: web.Request) -> web.Response:
        box = self._box(request)
        await box._must_run()
        path = (await request.json())["paths"][0]
        mark = secrets.token_hex(16)
        head = f'--{mark}\r\nContent-Disposition: form-data; name="file"; filename="{path}"\r\n\r\n'
        body = head.encode() + Path(path).read_bytes() + f"\r\n--{mark}--\r\n".encode()
        return web.Response(body=body, headers={"Content-Type": f"multipart/form-data; boundary={mark}"})

    async def _preview(self, request: web.Request) -> web.Response:
        box = self._box(request)
        if request.headers.get("X-Daytona-Preview-Token") != self.tokens[box.id]:
            return web.Response(status=401)
        if await box.state() is not SandboxState.RUNNING:
            return web.Response(status=502)
        kept = {k: v for k, v in request.headers.items() if k.lower() not in ("host", "content-length")}
        inner = f"http://127.0.0.1:{request.match_info['port']}{request.match_info['rest']}"
        if request.query_string:
            inner += "?" + request.query_string
        try:
            got = await self._http.request(request.method, inner, headers=kept, content=await request.read())
        except httpx.HTTPError:
            return web.Response(status=502)
        drop = ("content-length", "transfer-encoding", "connection", "date", "server")
        headers = {k: v for k, v in got.headers.items() if k.lower() not in drop}
        return web.Response(status=got.status_code, body=got.content, headers=headers)
