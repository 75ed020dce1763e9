"""A registry for the real npm: packages made of a few files, served on loopback."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import tarfile
from collections.abc import Mapping

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from handlers.playground.server import LoopbackServer


class NpmRegistry:
    """Use as `async with NpmRegistry() as registry`, then `publish`. asked: the paths of all requests.
    known_as: where it is found, if that is not where it listens."""

    def __init__(self, known_as: str = "") -> None:
        self._known_as = known_as
        self.asked: list[str] = []
        self._packages: dict[str, dict[str, bytes]] = {}
        self._server = LoopbackServer(Starlette(routes=[Route("/{path:path}", self._answer)]))

    async def __aenter__(self) -> NpmRegistry:
        await self._server.start()
        return self

    async def __aexit__(self, *args: object) -> None:
        await self._server.stop()

    @property
    def url(self) -> str:
        return self._known_as or self._server.url

    @property
    def port(self) -> int:
        return self._server.port

    def publish(self, name: str, version: str, program: str, script: str, **more: object) -> None:
        """A package with one program, a script of the shell."""
        about = {"name": name, "version": version, "bin": {program: "run.sh"}, **more}
        self._packages.setdefault(name, {})[version] = _packed(
            {"package.json": json.dumps(about), "run.sh": script}
        )

    async def _answer(self, request: Request) -> Response:
        path = request.path_params["path"].replace("%2f", "/")
        self.asked.append(path)
        name, _, file = path.partition("/-/")
        versions = self._packages.get(name)
        if versions is None:
            return JSONResponse({"error": "not_found"}, 404)
        if file:
            return Response(versions[file.removesuffix(".tgz")])
        newest = list(versions)[-1]
        told = {version: self._manifest(name, version, data) for version, data in versions.items()}
        return JSONResponse({"name": name, "dist-tags": {"latest": newest}, "versions": told})

    def _manifest(self, name: str, version: str, data: bytes) -> dict[str, object]:
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            file = archive.extractfile("package/package.json")
            assert file is not None
            about: dict[str, object] = json.load(file)
        digest = base64.b64encode(hashlib.sha512(data).digest()).decode()
        dist = {"tarball": f"{self.url}/{name}/-/{version}.tgz", "integrity": f"sha512-{digest}"}
        return {**about, "dist": dist}


def _packed(files: Mapping[str, str]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, text in files.items():
            info = tarfile.TarInfo(f"package/{name}")
            info.size, info.mode = len(text), 0o755
            archive.addfile(info, io.BytesIO(text.encode()))
    return packed.getvalue()
