"""An index for the real pip: wheels made of a few files, served on loopback."""

from __future__ import annotations

import base64
import hashlib
import io
import zipfile

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from handlers.playground.server import LoopbackServer


class PythonIndex:
    """Use as `async with PythonIndex() as index`, then `publish`. files: where its wheels are found, if that
    is another host."""

    def __init__(self, files: str = "") -> None:
        self._files = files
        self._wheels: dict[str, bytes] = {}
        routes = [Route("/simple/{name}/", self._list), Route("/wheels/{file}", self._wheel)]
        self._server = LoopbackServer(Starlette(routes=routes))

    async def __aenter__(self) -> PythonIndex:
        await self._server.start()
        return self

    async def __aexit__(self, *args: object) -> None:
        await self._server.stop()

    @property
    def url(self) -> str:
        return f"{self._server.url}/simple"

    @property
    def port(self) -> int:
        return self._server.port

    def publish(self, name: str, version: str, code: str) -> None:
        """A package with one module of its own name."""
        self._wheels[f"{name}-{version}-py3-none-any.whl"] = _wheel(name, version, code)

    async def _list(self, request: Request) -> Response:
        name = request.path_params["name"]
        links = [
            f'<a href="{self._files}/wheels/{file}#sha256={hashlib.sha256(data).hexdigest()}">{file}</a>'
            for file, data in self._wheels.items()
            if file.startswith(f"{name}-")
        ]
        return HTMLResponse("\n".join(links), 200 if links else 404)

    async def _wheel(self, request: Request) -> Response:
        return Response(self._wheels[request.path_params["file"]], media_type="application/octet-stream")


def _wheel(name: str, version: str, code: str) -> bytes:
    about = f"{name}-{version}.dist-info"
    files = {
        f"{name}.py": code,
        f"{about}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{about}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{path},{_digest(text)},{len(text)}\n" for path, text in files.items())
    files[f"{about}/RECORD"] = f"{record}{about}/RECORD,,\n"
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)
    return packed.getvalue()


def _digest(text: str) -> str:
    digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=")
    return f"sha256={digest.decode()}"
