"""The doctor on providers that are broken on purpose, on one with egress rules, and as a command."""

from __future__ import annotations

import asyncio
import http.server
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from bot.doctor import AT, CLEAN, OF, PURPOSE, REACHED, RUN, Check, Hosts, Outcome, Result, examine, line
from bot.doctor_checks import CHECKS
from bot.errors import ProviderUnavailable
from bot.models import Identity, SandboxKey
from sandbox.bubblewrap import Options
from sandbox.isolation import Bubblewrap, Unisolated
from sandbox.local import LocalProvider
from storage.dispatch import QueueDispatcher
from storage.store import SqliteStore
from tests.boxes import cannot_be_tested
from tests.broken_provider import broken
from tests.fakes import FakeClock

MADE = "a box is made"
KEPT = "a process is kept"
SLOWED = "nobody reads: it is slowed"

# fault → the check that finds it
FAULTS = {
    "has no room": MADE,
    "loses its answer": MADE,
    "finds nothing": "it is found by labels and id",
    "ignores labels": "it is found by labels and id",
    "never says gone": "an unknown box is gone",
    "mixes outputs": "output, stderr, exit code",
    "loses exit codes": "output, stderr, exit code",
    "guesses its home": "home and user",
    "spoils files": "files in and out",
    "writes anywhere": "no file elsewhere",
    "says words twice": "each word once, in order",
    "streams only what is new": "another bot goes on with it",
    "hears no signals": "interrupt and kill",
    "keeps all that nobody reads": SLOWED,
    "ends who is not read": SLOWED,
    "spoils long outputs": SLOWED,
    "shows other sessions": "sessions are hidden",
    "loses files": "a stop keeps files",
    "always runs": "a stop keeps files",
    "deletes nothing": "a deleted box is gone",
}


def with_needs(name: str) -> Sequence[Check]:
    """A check and what it stands on, in their order."""
    wanted, waiting = set[str](), [name]
    by_name = {check.name: check for check in CHECKS}
    while waiting:
        wanted.add(waiting.pop())
        waiting = [need for one in wanted for need in by_name[one].needs if need not in wanted]
    return [check for check in CHECKS if check.name in wanted]


async def examined(
    directory: Path, fault: str, checks: Sequence[Check], hosts: Hosts | None = None
) -> list[Result]:
    told: list[Result] = []
    results = await examine(
        lambda: broken(directory, fault),
        checks,
        hosts=hosts or Hosts(),
        installation="here",
        tell=told.append,
    )
    assert told == results
    return told


def failures(results: Sequence[Result]) -> list[str]:
    return [result.check for result in results if result.outcome is Outcome.FAILED]


@pytest.mark.parametrize("fault", FAULTS)
async def test_each_fault_is_found_where_it_is_and_the_box_does_not_stay(tmp_path: Path, fault: str) -> None:
    somebodys = await LocalProvider(tmp_path, Unisolated()).create({"sandpiper.purpose": "agent"})
    results = await examined(tmp_path, fault, with_needs(FAULTS[fault]))
    found = [FAULTS[fault], CLEAN] if fault == "deletes nothing" else [FAULTS[fault]]
    assert failures(results) == found
    assert all(result.mend for result in results if result.outcome is Outcome.FAILED), "what to do"
    left = {path.name for path in tmp_path.glob("local-*")} - {somebodys.id}
    if fault == "deletes nothing":
        assert left.pop() in results[-1].found
        assert RUN in results[-1].mend
    assert not left
    assert (tmp_path / somebodys.id).is_dir(), "what is not the doctor's is left alone"


async def test_what_stands_on_a_failure_is_not_tried(tmp_path: Path) -> None:
    results = await examined(tmp_path, "has no room", CHECKS)
    assert failures(results) == [MADE]
    assert {result.outcome for result in results[2:-1]} == {Outcome.SKIPPED}
    assert "Buy more" in line(results[1]) and "disk is used up" in line(results[1])


async def test_a_provider_that_hangs_is_given_up_on(tmp_path: Path) -> None:
    checks = [replace(check, patience=0.3) for check in with_needs(MADE)]
    results = await examined(tmp_path, "hangs", checks)
    assert failures(results) == [MADE]
    assert "longer than 0.3 s" in results[1].found


async def test_what_an_earlier_run_had_to_leave_is_deleted_after_an_hour(tmp_path: Path) -> None:
    provider = LocalProvider(tmp_path, Unisolated())
    now = time.time()

    async def left(at: float, of: str) -> str:
        labels = {PURPOSE: "doctor", RUN: "another", OF: of, AT: str(int(at))}
        return (await provider.create(labels)).id

    old, new = await left(now - 4000, "here"), await left(now, "here")
    others = await left(now - 4000, "elsewhere")
    assert not failures(await examined(tmp_path, "", with_needs(MADE)))
    assert {path.name for path in tmp_path.glob("local-*")} == {new, others}
    assert old not in (new, others)


async def test_when_it_is_cancelled_its_box_is_deleted_first(tmp_path: Path) -> None:
    told: list[Result] = []
    run = asyncio.create_task(
        examine(lambda: broken(tmp_path, ""), CHECKS, hosts=Hosts(), installation="x", tell=told.append)
    )
    async with asyncio.timeout(30):
        while not list(tmp_path.glob("local-*")):  # noqa: ASYNC110 the other task makes it
            await asyncio.sleep(0.001)
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert [(told[-1].check, told[-1].outcome)] == [(CLEAN, Outcome.OK)]
    assert not list(tmp_path.glob("local-*"))


# Egress


class Hello(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(204)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def service() -> Iterator[int]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hello) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


async def test_rules_that_hold_are_seen_to_hold(tmp_path: Path, service: int) -> None:
    provider = LocalProvider(tmp_path, Bubblewrap(Options(), allow=()))
    try:
        await provider.check()
    except ProviderUnavailable as error:
        cannot_be_tested(str(error))
    hosts = Hosts(f"http://127.0.0.1:{service}/", "http://169.254.169.254/latest", loopback=(service,))
    checks = with_needs("egress: who was refused")
    results = await examine(lambda: provider, checks, hosts=hosts, installation="here")
    assert {result.outcome for result in results} == {Outcome.OK}, results


async def test_a_host_that_should_be_refused_and_is_reached_is_a_failure(
    tmp_path: Path, service: int
) -> None:
    hosts = Hosts(f"http://127.0.0.1:{service}/", f"http://localhost:{service}/")
    results = await examined(tmp_path, "", with_needs("egress: a refused host"), hosts)
    assert failures(results) == ["egress: a refused host"]


async def test_a_host_that_is_not_reached_is_a_failure_and_then_a_refusal_tells_nothing(
    tmp_path: Path,
) -> None:
    hosts = Hosts("http://127.0.0.1:9/", "http://127.0.0.1:9/")
    results = await examined(tmp_path, "", with_needs("egress: a refused host"), hosts)
    assert failures(results) == ["egress: an allowed host"]
    assert results[-2].outcome is Outcome.SKIPPED


# As a command


def doctor(directory: Path, *words: str, allow: str = "*.example.com:443") -> subprocess.Popen[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("SANDPIPER_")}
    settings = {
        "SANDPIPER_DATA_DIR": str(directory / "data"),
        "SANDPIPER_SANDBOX_UNSAFE": "true",
        "SANDPIPER_EGRESS_MODE": "list",
        "SANDPIPER_EGRESS_ALLOW": allow,
    }
    return subprocess.Popen(
        [sys.executable, "-m", "bot", "doctor", *words],
        cwd=directory,
        env={**clean, **settings},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize(
    ("allow", "code", "told"),
    [("*.example.com:443", 0, "Nothing failed."), ("no-such-host.invalid:443", 1, "1 failed.")],
)
def test_the_command_prints_a_table_and_its_exit_code_tells(
    tmp_path: Path, allow: str, code: int, told: str
) -> None:
    run = doctor(tmp_path, "--provider", "local", allow=allow)
    out, err = run.communicate(timeout=100)
    assert (run.returncode, out.splitlines()[-1]) == (code, told), out + err
    assert [check.name for check in CHECKS if check.name not in out] == []
    assert CLEAN in out
    assert not list((tmp_path / "data" / "sandboxes").glob("local-*"))


async def test_the_command_tells_of_sandboxes_that_are_known_but_not_within_reach(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path / "data", FakeClock(), QueueDispatcher())
    ana = await store.person(Identity("slack", "slack:T1", "U_ANA", "Ana"))
    key = SandboxKey("sandpiper", ana.tenant, ana.id, "local")
    await store.save_sandbox(key, "local-1", "disk-1")
    await store.close()
    run = doctor(tmp_path, "--provider", "local")
    out, err = await asyncio.to_thread(run.communicate, timeout=100)
    assert (run.returncode, out.splitlines()[-1]) == (1, "1 failed."), out + err
    assert REACHED in out and "local-1  Ana (slack:T1)  on another disk or machine (disk-1)" in out
    assert "is its disk mounted?" in out


def test_an_interrupted_command_deletes_its_box_and_fails(tmp_path: Path) -> None:
    run = doctor(tmp_path)
    assert run.stdout is not None
    for row in run.stdout:
        if row.startswith("output, stderr, exit code"):
            break
    os.kill(run.pid, signal.SIGINT)
    out, _ = run.communicate(timeout=60)
    assert run.returncode == 1
    assert CLEAN in out and "Interrupted" in out
    assert not list((tmp_path / "data" / "sandboxes").glob("local-*"))


def test_a_provider_without_its_key_is_named_with_the_setting(tmp_path: Path) -> None:
    run = doctor(tmp_path, "--provider", "daytona")
    _, err = run.communicate(timeout=60)
    assert run.returncode == 2
    assert "SANDPIPER_DAYTONA_API_KEY" in err
