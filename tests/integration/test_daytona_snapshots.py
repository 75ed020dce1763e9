"""`sandpiper snapshot build`, from the command line to Daytona's routes: the real SDK, and its own models."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import re
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from aiohttp import web

from bot.cli import main
from tests.certificates import make_authority

models = pytest.importorskip("daytona_api_client_async", reason="the extra `daytona` is not installed")

KEY = "dtn_test"
LOGS = ["#1 FROM node", "#2 RUN apt-get", "#3 done"]


class Snapshots:
    """ends: the state in which a build ends. most: GiB of disk that the plan allows. told: whether the key
    may read the organisation; a status, if not. region: its limits in the region `us`, where it has own.
    says: whether it says of what a snapshot was built."""

    def __init__(self) -> None:
        self.known: dict[str, Any] = {}
        self.asked: list[Any] = []
        self.ends = "active"
        self.most = 10
        self.told = 200
        self.region: dict[str, float] = {}
        self.says = True
        self.url = ""

    async def start(self) -> None:
        app = web.Application()
        route = app.router.add_route
        route("GET", "/api/snapshots/{id}", self._get)
        route("DELETE", "/api/snapshots/{id}", self._delete)
        route("POST", "/api/snapshots", self._create)
        route("GET", "/api/snapshots/{id}/build-logs-url", self._logs_url)
        route("GET", "/logs/{id}", self._logs)
        route("GET", "/api/api-keys/current", self._key)
        route("GET", "/api/organizations/org-1", self._organization)
        route("GET", "/api/organizations/org-1/usage", self._usage)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def close(self) -> None:
        await self._runner.cleanup()

    def add(self, name: str, state: str, reason: str | None = None) -> Any:
        now = datetime.now(UTC)
        asked = next(one for one in reversed(self.asked) if one.name == name)
        built = models.BuildInfo(
            dockerfile_content=asked.build_info.dockerfile_content, context_hashes=[],
            created_at=now, updated_at=now, snapshot_ref="",
        )  # fmt: skip
        self.known[name] = models.SnapshotDto(
            id=f"id-{len(self.known)}", name=name, general=False, state=state, size=None, entrypoint=None,
            cpu=asked.cpu, gpu=0, mem=asked.memory, disk=asked.disk, error_reason=reason,
            created_at=now, updated_at=now,
            last_used_at=None, source_sandbox_id=None, build_info=built if self.says else None,
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

    async def _key(self, request: web.Request) -> web.Response:
        now = datetime.now(UTC)
        key = models.ApiKeyList(
            name="bot", value="dtn_***", created_at=now, permissions=["write:snapshots"], last_used_at=now,
            expires_at=None, user_id="u-1", organization_id="org-1",
        )  # fmt: skip
        return web.json_response(text=key.to_json())

    async def _organization(self, request: web.Request) -> web.Response:
        if self.told != 200:
            return _refused(self.told, "no")
        now = datetime.now(UTC)
        about = models.Organization(
            id="org-1", name="Acme", created_by="u-1", personal=False, created_at=now, updated_at=now,
            suspended=False, suspended_at=now, suspension_reason="", suspended_until=now,
            suspension_cleanup_grace_period_hours=0, max_cpu_per_sandbox=4, max_memory_per_sandbox=8,
            max_disk_per_sandbox=self.most, secret_quota=10, max_secrets_per_sandbox=10,
            snapshot_deactivation_timeout_minutes=0, default_queue_timeout=None,
            sandbox_limited_network_egress=False, preview_warning_enabled=False, sso_enabled=False,
            scim_enabled=False, default_region_id="us", authenticated_rate_limit=None,
            sandbox_create_rate_limit=None, sandbox_lifecycle_rate_limit=None, experimental_config={},
            otel_config=None, authenticated_rate_limit_ttl_seconds=None,
            sandbox_create_rate_limit_ttl_seconds=None, sandbox_lifecycle_rate_limit_ttl_seconds=None,
        )  # fmt: skip
        return web.json_response(text=about.to_json())

    async def _usage(self, request: web.Request) -> web.Response:
        names = [f"max_{what}_per_sandbox" for what in ("cpu", "memory", "disk", "disk_per_non_ephemeral")]
        own = {name.replace("_per_non_ephemeral_per_", "_per_non_ephemeral_"): None for name in names}
        own |= {f"max_{what}_per_gpu": None for what in ("cpu", "memory", "disk")}
        totals = {
            f"{which}_{what}_{kind}": 100
            for which, kind in (("total", "quota"), ("current", "usage"))
            for what in ("cpu", "memory", "disk", "gpu")
        }
        region = models.RegionUsageOverview(
            region_id="us", sandbox_class="container", **totals, **own | self.region
        )
        usage = models.OrganizationUsageOverview(
            region_usage=[region], total_snapshot_quota=10, current_snapshot_usage=0,
            total_volume_quota=10, current_volume_usage=0,
        )  # fmt: skip
        return web.json_response(text=usage.to_json())

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


def settings(daytona: Snapshots, *, key: str, ca: str = "") -> dict[str, str]:
    return {
        "PATH": "/usr/bin:/bin",
        "SANDPIPER_DAYTONA_API_KEY": key,
        "SANDPIPER_DAYTONA_API_URL": f"{daytona.url}/api",
        "SANDPIPER_CA_BUNDLE": ca,
    }


async def started(
    daytona: Snapshots, *words: str, cwd: Path, key: str = KEY, ca: str = ""
) -> tuple[int, str, str]:
    """The program itself, as an operator starts it."""
    program = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bot", *words),
        cwd=cwd,
        env={**settings(daytona, key=key, ca=ca), "PYTHONPATH": str(Path(__file__).parents[2])},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await program.communicate()
    assert program.returncode is not None
    return program.returncode, out.decode(), err.decode()


async def sandpiper(daytona: Snapshots, *words: str, cwd: Path, key: str = KEY) -> tuple[int, str, str]:
    """The same command within this process: a new one reads in the whole SDK again, for two seconds."""
    out, err = io.StringIO(), io.StringIO()
    with (
        mock.patch.dict(os.environ, settings(daytona, key=key), clear=True),
        contextlib.chdir(cwd),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        code = await asyncio.to_thread(main, words)  # with a loop of its own
    return code, out.getvalue(), err.getvalue()


async def test_it_is_built_with_its_logs_and_says_the_setting(daytona: Snapshots, tmp_path: Path) -> None:
    code, out, err = await started(daytona, "snapshot", "build", "--cpu", "4", cwd=tmp_path)
    assert (code, err) == (0, "")
    assert [line for line in out.splitlines() if line.startswith("#")] == LOGS
    (setting,) = re.findall(r"^SANDPIPER_DAYTONA_SNAPSHOT=(\S+)$", out, re.MULTILINE)
    (asked,) = daytona.asked
    assert (asked.name, asked.cpu, asked.memory, asked.disk) == (setting, 4, 4, 10)
    assert "USER agent" in asked.build_info.dockerfile_content
    assert KEY not in asked.to_json()

    for daytona.says in (True, False):  # its name says the rest
        code, out, _ = await sandpiper(daytona, "snapshot", "build", "--cpu", "4", cwd=tmp_path)
        assert code == 0 and "there already" in out and len(daytona.asked) == 1
        assert f"SANDPIPER_DAYTONA_SNAPSHOT={setting}" in out


async def test_another_size_is_another_snapshot(daytona: Snapshots, tmp_path: Path) -> None:
    for words in ((), ("--memory", "8"), ("--cpu", "4"), ("--disk", "9")):
        code, _, err = await sandpiper(daytona, "snapshot", "build", *words, cwd=tmp_path)
        assert (code, err) == (0, "")
    asked = {(one.name, one.cpu, one.memory, one.disk) for one in daytona.asked}
    assert {size[1:] for size in asked} == {(2, 4, 10), (2, 8, 10), (4, 4, 10), (2, 4, 9)}
    assert len({name for name, *_ in asked}) == 4


async def test_a_name_that_is_taken_by_something_else_is_refused_with_what_differs(
    daytona: Snapshots, tmp_path: Path
) -> None:
    words = ("snapshot", "build", "--name", "team")
    code, out, _ = await sandpiper(daytona, *words, cwd=tmp_path)
    assert code == 0 and "there already" not in out
    code, out, _ = await sandpiper(daytona, *words, cwd=tmp_path)
    assert code == 0 and "there already, made of the same Dockerfile" in out

    code, out, err = await sandpiper(daytona, *words, "--cpu", "4", "--memory", "8", cwd=tmp_path)
    assert code == 2 and "SANDPIPER_DAYTONA_SNAPSHOT" not in out and "--name" in err
    assert "--cpu 4, it has 2" in err and "--memory 8, it has 4 GiB" in err and "--disk" not in err

    (tmp_path / "my.Dockerfile").write_text("RUN apt-get install -y postgresql\n")
    code, out, err = await sandpiper(daytona, *words, "--from", "my.Dockerfile", cwd=tmp_path)
    assert code == 2 and "another Dockerfile" in err and "SANDPIPER_DAYTONA_SNAPSHOT" not in out

    daytona.says = False
    daytona.add("team", "active")
    code, out, err = await sandpiper(daytona, *words, cwd=tmp_path)
    assert code == 2 and "does not say of which Dockerfile" in err
    assert len(daytona.asked) == 1


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
    code, out, err = await started(daytona, "snapshot", "build", cwd=tmp_path)
    assert code == 2 and LOGS[1] in out
    assert "RUN apt-get exited with 100" in err and "SANDPIPER_DAYTONA_SNAPSHOT" not in out
    daytona.ends = "active"
    code, out, err = await sandpiper(daytona, "snapshot", "build", cwd=tmp_path)
    assert (code, err) == (0, "") and "made again" in out


async def test_what_the_plan_does_not_allow_is_said_before_anything_is_built(
    daytona: Snapshots, tmp_path: Path
) -> None:
    words = ("snapshot", "build", "--cpu", "8", "--disk", "50")
    code, out, err = await sandpiper(daytona, *words, cwd=tmp_path)
    assert code == 2 and not daytona.asked and not out
    assert "--cpu 8 is more than the 4 that a sandbox may have of Acme" in err
    assert "--disk 50 is more than the 10 GiB" in err and "--memory 4" not in err
    assert "app.daytona.io/dashboard/limits" in err


@pytest.mark.parametrize(
    ("region", "words", "said"),
    [
        ({"max_disk_per_sandbox": 60}, ("--disk", "50"), ""),
        ({"max_disk_per_sandbox": 5}, (), "--disk 10 is more than the 5 GiB .* in the region us"),
        ({"max_memory_per_sandbox": 0.5}, ("--memory", "1"), "--memory 1 is more than the 0.5 GiB"),
        (
            {"max_disk_per_non_ephemeral_sandbox": 8},
            (),
            "--disk 10 is more than the 8 GiB .* that are kept, in the region us",
        ),
    ],
)
async def test_a_regions_own_limits_hold_instead_of_the_organisations(
    daytona: Snapshots, tmp_path: Path, region: dict[str, float], words: tuple[str, ...], said: str
) -> None:
    daytona.region = region
    daytona.most = int(region.get("max_disk_per_sandbox", daytona.most))
    code, _, err = await sandpiper(daytona, "snapshot", "build", *words, cwd=tmp_path)
    assert re.search(said, err) and code == (2 if said else 0)


@pytest.mark.parametrize("status", [401, 403, 404, 500])
async def test_where_the_key_may_not_read_the_limits_daytonas_refusal_says_it(
    daytona: Snapshots, tmp_path: Path, status: int
) -> None:
    daytona.told = status
    code, _, err = await sandpiper(daytona, "snapshot", "build", "--disk", "50", cwd=tmp_path)
    assert code == 2 and "50GB exceeds maximum allowed" in err and "--disk" in err
    assert "SANDPIPER_DAYTONA_API_KEY" not in err
    code, _, err = await sandpiper(daytona, "snapshot", "build", cwd=tmp_path)
    assert (code, err) == (0, "")


async def test_a_wrong_or_missing_key_names_the_setting(daytona: Snapshots, tmp_path: Path) -> None:
    for key in ("wrong", ""):
        code, _, err = await sandpiper(daytona, "snapshot", "build", cwd=tmp_path, key=key)
        assert code == 2 and "SANDPIPER_DAYTONA_API_KEY" in err


async def test_the_dockerfile_alone_is_for_docker_and_e2b(daytona: Snapshots, tmp_path: Path) -> None:
    code, out, _ = await sandpiper(daytona, "snapshot", "dockerfile", cwd=tmp_path, key="")
    assert code == 0 and out.rstrip().endswith('CMD ["sleep", "infinity"]')


async def test_the_operators_certificates_count_for_it_too(daytona: Snapshots, tmp_path: Path) -> None:
    authority = make_authority(tmp_path)
    code, _, err = await started(daytona, "snapshot", "build", cwd=tmp_path, ca=str(authority.bundle))
    assert (code, err) == (0, "")
    trusted = (tmp_path / "data" / "certificates.pem").read_bytes()
    assert authority.bundle.read_bytes() in trusted
