"""`sandpiper snapshot build`, from the command line to Daytona's routes: the real SDK, and its own models."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

models = pytest.importorskip("daytona_api_client_async", reason="the extra `daytona` is not installed")

KEY = "dtn_test"
LOGS = ["#1 FROM node", "#2 RUN apt-get", "#3 done"]


class Snapshots:
    """`ends`: the state in which a build ends. `most`: GiB of disk that the plan allows."""

    def __init__(self) -> None:
        self.known: dict[str, Any] = {}
        self.asked: list[Any] = []
        self.ends = "active"
        self.most = 10
        self.url = ""

    async def start(self) -> None:
        app = web.Application()
        route = app.router.add_route
        route("GET", "/api/snapshots/{id}", self._get)
        route("DELETE", "/api/snapshots/{id}", self._delete)
        route("POST", "/api/snapshots", self._create)
        route("GET", "/api/snapshots/{id}/build-logs-url", self._logs_url)
        route("GET", "/logs/{id}", self._logs)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def close(self) -> None:
        await self._runner.cleanup()

    def add(self, name: str, state: str, reason: str | None = None) -> Any:
        now = datetime.now(UTC)
        self.known[name] = models.SnapshotDto(
            id=f"id-{len(self.known)}", name=name, general=False, state=state, size=None, entrypoint=None,
            cpu=1, gpu=0, mem=1, disk=3, error_reason=reason, created_at=now, updated_at=now,
            last_used_at=None, source_sandbox_id=None,
        )  # fmt: skip
        return self.known[name]

    async def _get(self, request: web.Request) -> web.Response:
        found = self._found(request)
        if found is None:
            return _refused(404, f"Snapshot with ID {request.match_info['id']} not found")
        return web.json_response(text=found.to_json())

    async def _delete(self, request: web.Request) -> web.Response:
        found = self._found(request)
        assert found is not None
        del self.known[found.name]
        return web.Response()

    async def _create(self, request: web.Request) -> web.Response:
        if request.headers["Authorization"] != f"Bearer {KEY}":
            return _refused(401, "Invalid credentials")
        asked = models.CreateSnapshot.from_json(await request.text())
        if asked.disk > self.most:
            return _refused(
                403,
                f"Disk request {asked.disk}GB exceeds maximum allowed per sandbox ({self.most}GB).",
            )
        self.asked.append(asked)
        return web.json_response(text=self.add(asked.name, "building").to_json())

    async def _logs_url(self, request: web.Request) -> web.Response:
        url = f"{self.url}/logs/{request.match_info['id']}"
        return web.json_response(text=models.Url(url=url).to_json())

    async def _logs(self, request: web.Request) -> web.StreamResponse:
        stream = web.StreamResponse()
        await stream.prepare(request)
        for line in LOGS:
            await stream.write(f"{line}\n".encode())
            await asyncio.sleep(0)
        found = self._found(request)
        assert found is not None
        reason = "RUN apt-get exited with 100" if self.ends == "build_failed" else None
        self.add(found.name, self.ends, reason).id = found.id
        return stream

    def _found(self, request: web.Request) -> Any:
        asked = request.match_info["id"]
        return next((one for one in self.known.values() if asked in (one.id, one.name)), None)


def _refused(status: int, message: str) -> web.Response:
    return web.json_response({"statusCode": status, "message": message, "error": "no"}, status=status)


@pytest.fixture
async def daytona() -> AsyncIterator[Snapshots]:
    server = Snapshots()
    await server.start()
    yield server
    await server.close()


async def sandpiper(daytona: Snapshots, *words: str, cwd: Path, key: str = KEY) -> tuple[int, str, str]:
    env = {
        "PATH": "/usr/bin:/bin",
        "SANDPIPER_DAYTONA_API_KEY": key,
        "SANDPIPER_DAYTONA_API_URL": f"{daytona.url}/api",
    }
    program = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bot", *words),
        cwd=cwd,
        env={**env, "PYTHONPATH": str(Path(__file__).parents[2])},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await program.communicate()
    assert program.returncode is not None
    return program.returncode, out.decode(), err.decode()


async def test_it_is_built_with_its_logs_and_says_the_setting(daytona: Snapshots, tmp_path: Path) -> None:
    code, out, err = await sandpiper(daytona, "snapshot", "build", "--cpu", "4", cwd=tmp_path)
    assert (code, err) == (0, "")
    assert [line for line in out.splitlines() if line.startswith("#")] == LOGS
    (setting,) = re.findall(r"^SANDPIPER_DAYTONA_SNAPSHOT=(\S+)$", out, re.MULTILINE)
    (asked,) = daytona.asked
    assert (asked.name, asked.cpu, asked.memory, asked.disk) == (setting, 4, 4, 10)
    assert "USER agent" in asked.build_info.dockerfile_content
    assert KEY not in asked.to_json()

    code, out, _ = await sandpiper(daytona, "snapshot", "build", cwd=tmp_path)
    assert code == 0 and "there already" in out and len(daytona.asked) == 1
    assert f"SANDPIPER_DAYTONA_SNAPSHOT={setting}" in out


async def test_an_operators_dockerfile_goes_on_with_ours(daytona: Snapshots, tmp_path: Path) -> None:
    (tmp_path / "my.Dockerfile").write_text("RUN apt-get install -y postgresql\n")
    words = ("snapshot", "build", "--from", "my.Dockerfile", "--name", "ours")
    code, out, _ = await sandpiper(daytona, *words, cwd=tmp_path)
    assert code == 0 and "SANDPIPER_DAYTONA_SNAPSHOT=ours" in out
    assert "install -y postgresql" in daytona.asked[0].build_info.dockerfile_content
    (tmp_path / "my.Dockerfile").write_text("FROM ubuntu\n")
    code, _, err = await sandpiper(daytona, *words, cwd=tmp_path)
    assert code == 2 and "no FROM" in err
    code, _, err = await sandpiper(daytona, *words[:3], "nowhere", cwd=tmp_path)
    assert code == 2 and "nowhere" in err


async def test_a_build_that_fails_says_why_and_can_be_tried_again(daytona: Snapshots, tmp_path: Path) -> None:
    daytona.ends = "build_failed"
    code, out, err = await sandpiper(daytona, "snapshot", "build", cwd=tmp_path)
    assert code == 2 and LOGS[1] in out
    assert "RUN apt-get exited with 100" in err and "SANDPIPER_DAYTONA_SNAPSHOT" not in out
    daytona.ends = "active"
    code, out, err = await sandpiper(daytona, "snapshot", "build", cwd=tmp_path)
    assert (code, err) == (0, "") and "made again" in out


async def test_what_the_plan_does_not_allow_says_which_word_to_change(
    daytona: Snapshots, tmp_path: Path
) -> None:
    code, _, err = await sandpiper(daytona, "snapshot", "build", "--disk", "50", cwd=tmp_path)
    assert code == 2 and "50GB exceeds maximum allowed" in err and "--disk" in err


async def test_a_wrong_or_missing_key_names_the_setting(daytona: Snapshots, tmp_path: Path) -> None:
    for key in ("wrong", ""):
        code, _, err = await sandpiper(daytona, "snapshot", "build", cwd=tmp_path, key=key)
        assert code == 2 and "SANDPIPER_DAYTONA_API_KEY" in err


async def test_the_dockerfile_alone_is_for_docker_and_e2b(daytona: Snapshots, tmp_path: Path) -> None:
    code, out, _ = await sandpiper(daytona, "snapshot", "dockerfile", cwd=tmp_path, key="")
    assert code == 0 and out.rstrip().endswith('CMD ["sleep", "infinity"]')
