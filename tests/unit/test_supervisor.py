"""The supervisor, driven as the program that it is: keeper, ctl and door."""

from __future__ import annotations

import base64
import contextlib
import fcntl
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

PROGRAM = Path(__file__).parents[2] / "sandbox" / "inside" / "supervisor.py"
PYTHON = [sys.executable, "-I", "-S"]
MB = 1 << 20


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=30)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(str(self.path))


class Reply:
    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.body = response.read()
        self.next = int(response.headers.get("X-Next", -1))
        self.eof = response.headers.get("X-Eof") == "1"

    @property
    def json(self) -> dict[str, Any]:
        return dict(json.loads(self.body))


def ask(connection: http.client.HTTPConnection, method: str, target: str, **more: Any) -> Reply:
    with contextlib.closing(connection):
        connection.request(method, target, **more)
        return Reply(connection.getresponse())


class Kept:
    """A program under a keeper, as its driver sees it."""

    def __init__(self, directory: Path, status: dict[str, Any]) -> None:
        self.directory = directory
        self.first = status

    def get(self, target: str) -> Reply:
        return ask(UnixConnection(self.directory / "sock"), "GET", target)

    def post(self, target: str, body: bytes = b"") -> Reply:
        return ask(UnixConnection(self.directory / "sock"), "POST", target, body=body)

    def write(self, data: bytes, offset: int, *, fence: int = 1, eof: bool = False) -> Reply:
        return self.post(f"/in?off={offset}&fence={fence}&eof={int(eof)}", data)

    def status(self) -> dict[str, Any]:
        return self.get("/status").json

    def read_all(self, fd: int = 1, start: int = 0, *, ack: bool = False) -> bytes:
        """Everything from an offset to the end of the program."""
        data = b""
        while True:
            reached = start + len(data)
            reply = self.get(f"/out?fd={fd}&from={reached}&wait=20&ack={reached if ack else 0}")
            assert reply.status == 200, reply.body
            assert reply.next == reached + len(reply.body)
            data += reply.body
            if reply.eof:
                return data

    def read_until(self, expected: bytes) -> bytes:
        data = b""
        while expected not in data:
            reply = self.get(f"/out?fd=1&from={len(data)}&wait=20")
            assert reply.body, f"ended with {data!r}, waiting for {expected!r}"
            data += reply.body
        return data


Start = Callable[..., Kept]


def run_keep(directory: Path, launch: dict[str, Any], *wrapper: str) -> dict[str, Any]:
    done = subprocess.run(
        [*wrapper, *PYTHON, str(PROGRAM), "keep", "--dir", str(directory)],
        input=json.dumps(launch).encode(),
        capture_output=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    return dict(json.loads(done.stdout))


def run_ctl(directory: Path, method: str, target: str, body: bytes = b"") -> tuple[int, bytes]:
    done = subprocess.run(
        [*PYTHON, str(PROGRAM), "ctl", str(directory), method, target],
        input=body,
        capture_output=True,
        timeout=30,
        check=True,
    )
    said = json.loads(done.stdout)
    return said["status"], base64.b64decode(said["body"])


def end(directory: Path) -> None:
    """Whatever a test left running there ends now."""
    if (directory / "keeper").exists():
        kept = json.loads((directory / "keeper").read_text())
        for kill, pid in ((os.kill, kept["pid"]), (os.killpg, kept["child"])):
            with contextlib.suppress(ProcessLookupError):
                kill(pid, signal.SIGKILL)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    started: list[Path] = []

    def start(*argv: str, directory: Path | None = None, **launch: Any) -> Kept:
        place = directory or tmp_path / f"process-{len(started)}"
        started.append(place)
        launch = {"argv": argv, "env": {"PATH": os.environ["PATH"]}, "fence": 1, "lease": 60, **launch}
        return Kept(place, run_keep(place, launch))

    yield start
    for place in started:
        end(place)


def python(source: str) -> tuple[str, ...]:
    return (sys.executable, "-I", "-S", "-u", "-c", textwrap.dedent(source))


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.01)


# Output


def test_output_is_replayed_from_any_byte_offset(start: Start) -> None:
    kept = start("printf", "one\ntwo\nthree\n")
    assert kept.read_all() == b"one\ntwo\nthree\n"
    assert kept.read_all(start=5) == b"wo\nthree\n"
    assert kept.get("/out?fd=1&from=4&max=3").body == b"two"


def test_a_partial_line_and_nul_bytes_arrive_as_they_are(start: Start) -> None:
    kept = start("sh", "-c", r"printf 'a\000b\nno newline yet'; cat >/dev/null")
    assert kept.read_until(b"yet") == b"a\0b\nno newline yet"


def test_stderr_stays_apart_from_stdout(start: Start) -> None:
    kept = start("sh", "-c", "echo out; echo err >&2")
    assert kept.read_all(1) == b"out\n"
    assert kept.read_all(2) == b"err\n"


def test_a_line_of_four_megabytes_goes_in_and_comes_out(start: Start) -> None:
    kept = start("cat")
    line = b"x" * (4 * MB) + b"\n"
    assert kept.write(line, 0, eof=True).status == 200
    assert kept.read_all() == line


def test_a_long_poll_returns_as_soon_as_there_is_output(start: Start) -> None:
    kept = start("cat")
    with ThreadPoolExecutor(1) as pool:
        began = time.monotonic()
        polled = pool.submit(kept.get, "/out?fd=1&from=0&wait=30")
        kept.write(b"now\n", 0)
        assert polled.result().body == b"now\n"
    assert time.monotonic() - began < 10


def test_a_long_poll_ends_without_output_after_its_wait(start: Start) -> None:
    reply = start("cat").get("/out?fd=1&from=0&wait=0.1")
    assert (reply.status, reply.body, reply.next, reply.eof) == (200, b"", 0, False)


def test_reading_beyond_the_end_is_refused(start: Start) -> None:
    assert start("cat").get("/out?fd=1&from=1").status == 416


# Stdin


def test_the_same_input_posted_three_times_arrives_once(start: Start) -> None:
    kept = start("cat")
    for _ in range(3):
        reply = kept.write(b"hello\n", 0)
        assert (reply.status, reply.json["in_off"]) == (200, 6)
    kept.write(b"", 6, eof=True)
    assert kept.read_all() == b"hello\n"


def test_of_an_overlapping_input_only_the_new_part_is_taken(start: Start) -> None:
    kept = start("cat")
    kept.write(b"abc", 0)
    assert kept.write(b"bcdef", 1).json["in_off"] == 6
    kept.write(b"", 6, eof=True)
    assert kept.read_all() == b"abcdef"


def test_a_gap_in_the_input_is_refused_with_the_offset_to_resend_from(start: Start) -> None:
    kept = start("cat")
    kept.write(b"abc", 0)
    reply = kept.write(b"z", 7)
    assert (reply.status, reply.json["in_off"]) == (409, 3)


def test_a_program_that_does_not_read_blocks_nobody(start: Start) -> None:
    kept = start("sleep", "60")
    big = b"x" * (12 * MB)
    assert kept.write(big, 0).status == 200
    assert kept.write(big, len(big)).status == 503
    assert kept.status()["running"]


def test_eof_closes_stdin_and_may_be_repeated(start: Start) -> None:
    kept = start("sh", "-c", "cat; exit 7")
    assert kept.write(b"last", 0, eof=True).status == 200
    assert kept.read_all() == b"last"
    assert kept.write(b"last", 0, eof=True).status == 200
    assert kept.write(b"more", 4).status == 410
    assert kept.status()["exit_code"] == 7


# Fences


def test_a_stale_fence_is_refused_and_a_newer_one_is_adopted(start: Start) -> None:
    kept = start("cat", fence=5)
    assert kept.write(b"a", 0, fence=4).status == 412
    assert kept.write(b"a", 0, fence=6).status == 200
    assert kept.write(b"b", 1, fence=5).status == 412
    assert kept.post("/signal?sig=KILL&fence=5").status == 412
    assert kept.post("/lease?ttl=1&fence=5").status == 412
    assert kept.status()["fence"] == 6
    assert kept.post("/in?off=1", b"b").status == 400, "a fence must be named"


# Signals and ends


def test_int_reaches_the_whole_group(start: Start) -> None:
    kept = start("sh", "-c", "trap 'echo interrupted; exit 3' INT; echo ready; sleep 60 & wait")
    kept.read_until(b"ready\n")
    assert kept.post("/signal?sig=INT&fence=1").status == 200
    assert kept.read_all() == b"ready\ninterrupted\n"
    assert kept.status()["exit_code"] == 3


def test_a_signal_to_an_ended_program_is_no_error(start: Start) -> None:
    kept = start("true")
    kept.read_all()
    assert kept.post("/signal?sig=KILL&fence=1").json["exit_code"] == 0


def test_death_by_signal_is_a_negative_exit_code(start: Start) -> None:
    kept = start("sh", "-c", "kill -9 $$")
    kept.read_all()
    assert kept.status()["exit_code"] == -9


def test_what_a_program_leaves_running_ends_with_it(start: Start) -> None:
    kept = start("sh", "-c", "sleep 600 & echo $!; exit 0")
    left_over = int(kept.read_all())
    wait_until(lambda: not is_alive(left_over))


# Of three that have left the group, one has lost its parent, and one will when the program ends.
APART = """
setsid sh -c 'echo $$; while :; do sleep 0.05; done' &
(setsid sh -c 'trap "" TERM; echo $$; while :; do sleep 0.05; done' &)
setsid sh -c 'setsid sh -c "echo \\$\\$; while :; do sleep 0.05; done" & wait' &
wait
"""
ADOPTING = [*PYTHON, str(PROGRAM.with_name("forward.py")), "--adopt", "--"]


@pytest.mark.parametrize("end", ["signal?sig=KILL", "lease?ttl=0"])
def test_who_has_left_the_programs_group_ends_with_a_program_that_is_ended(start: Start, end: str) -> None:
    kept = start(*ADOPTING, "sh", "-c", APART, shield=True, grace=5)
    wait_until(lambda: (kept.directory / "stdout").read_bytes().count(b"\n") == 3)
    apart = [int(word) for word in kept.get("/out?fd=1&from=0").body.split()]
    kept.post(f"/{end}&fence=1")
    wait_until((kept.directory / "exit").exists)
    assert [pid for pid in apart if is_alive(pid)] == []


@pytest.mark.parametrize("asked", [False, True])
def test_who_has_left_the_programs_group_stays_when_it_ends_in_its_own_way(start: Start, asked: bool) -> None:
    kept = start(*ADOPTING, "sh", "-c", "setsid sh -c 'echo $$; exec sleep 600' & cat >&2")
    apart = int(kept.read_until(b"\n"))
    if asked:  # as an agent is that does not leave within seconds
        kept.post("/signal?sig=TERM&fence=1")
    else:
        kept.write(b"", 0, eof=True)
    wait_until((kept.directory / "exit").exists)
    assert is_alive(apart)
    os.kill(apart, signal.SIGKILL)


def test_a_program_that_cannot_be_started_has_ended_with_its_reason(start: Start) -> None:
    kept = start("no-such-program")
    assert kept.first["exit_code"] == 127
    assert "no-such-program" in kept.first["error"]
    assert kept.get("/out?fd=1&from=0&wait=5").eof


def test_the_way_it_ended_is_on_disk(start: Start) -> None:
    kept = start("sh", "-c", "exit 4")
    kept.read_all()
    assert json.loads((kept.directory / "exit").read_text())["exit_code"] == 4


# Leases


def test_an_orphan_ends_itself(start: Start) -> None:
    kept = start("sleep", "600", lease=0.3)
    wait_until((kept.directory / "exit").exists)
    ended = json.loads((kept.directory / "exit").read_text())
    assert (ended["exit_code"], ended["ended_by"]) == (-signal.SIGTERM, "lease")


def test_an_orphan_that_ignores_term_is_killed(start: Start) -> None:
    kept = start("sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.05; done", lease=60, grace=0.2)
    assert kept.get("/out?fd=1&from=0&wait=30").status == 200, "it ignores TERM from here on"
    kept.post("/lease?ttl=0&fence=1")
    wait_until((kept.directory / "exit").exists)
    assert json.loads((kept.directory / "exit").read_text())["exit_code"] == -signal.SIGKILL


def test_a_lease_is_pushed_by_asking_and_by_reading(start: Start) -> None:
    kept = start("cat", lease=2.0)
    assert kept.get("/out?fd=1&from=0&wait=2.3").status == 200, "it is no orphan while somebody reads"
    assert kept.status()["running"]
    assert kept.post("/lease?ttl=50&fence=1").json["lease_left"] > 40
    kept.post("/lease?ttl=0&fence=1")
    wait_until((kept.directory / "exit").exists)


def test_a_keeper_that_nobody_needs_leaves_and_its_output_stays_readable(start: Start) -> None:
    kept = start("sh", "-c", "echo rest; exit 6", lease=0.3)
    keeper = json.loads((kept.directory / "keeper").read_text())["pid"]
    wait_until(lambda: not is_alive(keeper))
    assert run_ctl(kept.directory, "GET", "/out?fd=1&from=0") == (200, b"rest\n")
    assert json.loads(run_ctl(kept.directory, "GET", "/status")[1])["exit_code"] == 6
    assert run_ctl(kept.directory, "POST", "/in?off=0&fence=1", b"x")[0] == 410
    assert run_ctl(kept.directory, "POST", "/forget")[0] == 200
    assert not kept.directory.exists()


# A full disk


@pytest.mark.parametrize(
    ("file", "leads", "why"),
    [
        ("keeper.new", "/dev/full", b"No space left on device"),
        ("stderr", "nowhere/stderr", b"No such file or directory"),
        ("log", "nowhere/log", b"No such file or directory"),
    ],
)
def test_what_cannot_be_written_down_is_not_started_and_is_when_there_is_room(
    start: Start, tmp_path: Path, file: str, leads: str, why: bytes
) -> None:
    directory, ran = tmp_path / "turn-1", tmp_path / "ran"
    directory.mkdir()
    (directory / file).symlink_to(leads)
    launch = {"argv": ["touch", str(ran)], "env": {"PATH": os.environ["PATH"]}, "fence": 1, "lease": 60}
    keep = [*PYTHON, str(PROGRAM), "keep", "--dir", str(directory)]
    said = subprocess.run(keep, input=json.dumps(launch).encode(), capture_output=True, check=False)
    assert said.returncode != 0
    assert b"it did not start: " in said.stderr.splitlines()[-1]
    assert why in said.stderr.splitlines()[-1]
    assert not ran.exists()
    (directory / file).unlink(missing_ok=True)
    kept = start("touch", str(ran), directory=directory)
    wait_until(lambda: kept.status()["exit_code"] == 0)
    assert ran.exists()


def test_an_end_that_cannot_be_written_down_is_told_at_once_and_written_when_there_is_room(
    start: Start,
) -> None:
    kept = start("sh", "-c", "cat; exit 6")
    keeper = json.loads((kept.directory / "keeper").read_text())["pid"]
    (kept.directory / "exit.new").symlink_to("/dev/full")
    kept.write(b"", 0, eof=True)
    assert kept.read_all() == b""
    assert kept.status()["exit_code"] == 6
    (kept.directory / "exit.new").unlink()
    kept.post("/lease?ttl=0&fence=1")
    wait_until(lambda: not is_alive(keeper))
    assert json.loads(run_ctl(kept.directory, "GET", "/status")[1])["exit_code"] == 6


# The spool


NOISE = """
    import sys, time
    for n in range(2000):
        sys.stdout.buffer.write(b"%07d" % n + b"." * 4088 + b"\\n")
        if n % 20 == 0:
            time.sleep(0.005)  # no program writes 8 MB before anybody can look
"""


def test_a_full_spool_pauses_the_program_until_it_is_read(start: Start) -> None:
    kept = start(*python(NOISE), max_spool=MB // 2)
    wait_until(lambda: bool(kept.status()["paused"]))
    assert kept.status()["out"][0] < 2000 * 4096
    data = kept.read_all(ack=True)
    assert len(data) == 2000 * 4096
    assert data[-4096:].startswith(b"0001999")
    assert kept.status()["exit_code"] == 0


def test_who_has_left_the_programs_group_is_paused_too(start: Start) -> None:
    noisy = "setsid sh -c 'while kill -0 $0; do echo noise; done' $$ & wait"
    kept = start("sh", "-c", noisy, max_spool=4096)
    wait_until(lambda: bool(kept.status()["paused"]))

    def grows() -> bool:
        before = kept.status()["out"][0]
        time.sleep(0.1)
        return bool(kept.status()["out"][0] > before)

    wait_until(lambda: not grows())
    read = kept.status()["out"][0]
    kept.get(f"/out?fd=1&from={read}&ack={read}")
    wait_until(lambda: bool(kept.status()["out"][0] > read))  # and it may be paused again at once
    kept.post("/signal?sig=KILL&fence=1")  # ends it in good order: what it started can end too


def test_acknowledged_bytes_are_given_back_to_the_disk(start: Start) -> None:
    kept = start(*python(NOISE))
    size = len(kept.read_all())
    kept.get(f"/out?fd=1&from={size}&ack={size}")
    blocks = (kept.directory / "stdout").stat().st_blocks
    if not blocks < size // 512 // 2:
        pytest.skip("this file system cannot punch holes")
    assert kept.get("/out?fd=1&from=0").status == 410


def test_a_paused_program_can_still_be_interrupted(start: Start) -> None:
    kept = start("sh", "-c", "trap 'exit 9' TERM; while :; do echo noise; done", max_spool=4096)
    wait_until(lambda: bool(kept.status()["paused"]))
    kept.post("/signal?sig=TERM&fence=1")
    wait_until(lambda: kept.status()["exit_code"] == 9)


def test_an_idle_keeper_uses_no_cpu(start: Start) -> None:
    kept = start("cat")
    keeper = json.loads((kept.directory / "keeper").read_text())["pid"]

    def ticks() -> int:
        fields = Path(f"/proc/{keeper}/stat").read_text().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])

    before = ticks()
    kept.get("/out?fd=1&from=0&wait=1")
    assert ticks() - before <= 2, "hundredths of a second, while one long poll waits"


# Lives


def test_starting_twice_finds_the_first(start: Start, tmp_path: Path) -> None:
    first = start("sh", "-c", "echo once; cat", directory=tmp_path / "same")
    second = start("sh", "-c", "echo twice; cat", directory=tmp_path / "same")
    assert second.first["pid"] == first.first["pid"]
    assert first.read_until(b"once\n") == b"once\n"


def test_starts_side_by_side_make_one_program(start: Start, tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        again = [pool.submit(start, "cat", directory=tmp_path / "same") for _ in range(4)]
        assert len({kept.result().first["pid"] for kept in again}) == 1


def test_starting_again_after_the_end_reports_the_end(start: Start, tmp_path: Path) -> None:
    start("sh", "-c", "exit 5", directory=tmp_path / "same").read_all()
    assert start("cat", directory=tmp_path / "same").first["exit_code"] == 5


def test_the_keeper_outlives_whoever_started_it(start: Start, tmp_path: Path) -> None:
    place = tmp_path / "survivor"
    launch = json.dumps({"argv": ["cat"], "env": {}, "fence": 1, "lease": 60})
    keep = f"{sys.executable} -I {PROGRAM} keep --dir {place}"
    starter = subprocess.Popen(
        ["sh", "-c", f"echo '{launch}' | {keep}; sleep 600"], stdout=subprocess.PIPE, start_new_session=True
    )
    with starter:
        assert starter.stdout is not None
        status = json.loads(starter.stdout.readline())
        os.killpg(starter.pid, signal.SIGKILL)
    kept = Kept(place, status)
    kept.write(b"still here", 0, eof=True)
    assert kept.read_all() == b"still here"
    end(place)


def test_when_the_keeper_is_killed_the_program_gets_eof(start: Start) -> None:
    kept = start("sh", "-c", "cat; echo bye")
    os.kill(json.loads((kept.directory / "keeper").read_text())["pid"], signal.SIGKILL)
    wait_until(lambda: (kept.directory / "stdout").read_bytes() == b"bye\n")


def test_a_program_whose_keeper_was_killed_is_not_left_running(start: Start) -> None:
    kept = start("sleep", "600")
    os.kill(json.loads((kept.directory / "keeper").read_text())["pid"], signal.SIGKILL)
    status: dict[str, Any] = {"running": True}

    def keeper_is_missed() -> bool:
        code, body = run_ctl(kept.directory, "GET", "/status")
        status.update(json.loads(body))
        return code == 200 and not status["running"]

    wait_until(keeper_is_missed)
    assert (status["exit_code"], status["ended_by"]) == (None, "keeper lost")
    wait_until(lambda: not is_alive(kept.first["pid"]))


def test_forgetting_drops_keeper_and_files_but_not_of_a_running_program(start: Start) -> None:
    kept = start("cat")
    keeper = json.loads((kept.directory / "keeper").read_text())["pid"]
    assert kept.post("/forget").status == 409
    kept.write(b"", 0, eof=True)
    kept.read_all()
    assert kept.post("/forget").status == 200
    assert not kept.directory.exists()
    wait_until(lambda: not is_alive(keeper))


def test_a_directory_deeper_than_a_unix_address_is_no_obstacle(start: Start, tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 90) / ("e" * 90)
    start("sh", "-c", "echo deep; cat", directory=deep)
    assert run_ctl(deep, "GET", "/out?fd=1&from=0&wait=5") == (200, b"deep\n")


def test_a_keeper_holds_nothing_that_its_starter_left_open(tmp_path: Path) -> None:
    read, write = os.pipe()
    launch = json.dumps({"argv": ["cat"], "env": {}, "fence": 1, "lease": 60}).encode()
    command = [*PYTHON, str(PROGRAM), "keep", "--dir", str(tmp_path / "process")]
    subprocess.run(command, input=launch, pass_fds=[write], check=True, capture_output=True, timeout=30)
    os.close(write)
    assert os.read(read, 1) == b"", "everybody has let go of it"
    os.close(read)
    end(tmp_path / "process")


def has_open(pid: int, path: Path) -> bool:
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            if fd.samefile(path):
                return True
    return False


def test_nothing_starts_while_somebody_looks_whether_anything_runs(tmp_path: Path) -> None:
    place = tmp_path / "process"
    launch = json.dumps({"argv": ["cat"], "env": {}, "fence": 1, "lease": 60}).encode()
    look = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(look, fcntl.LOCK_EX)
    command = [*PYTHON, str(PROGRAM), "keep", "--dir", str(place)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as starting:
        assert starting.stdin and starting.stdout
        starting.stdin.write(launch)
        starting.stdin.close()
        until = time.monotonic() + 20
        while not has_open(starting.pid, tmp_path):
            assert time.monotonic() < until, "it does not ask for the lock"
            time.sleep(0.01)
        assert not place.exists()
        os.close(look)
        assert json.loads(starting.stdout.read())["running"] and starting.wait(20) == 0
    look = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(look, fcntl.LOCK_EX | fcntl.LOCK_NB)  # who has started has let go of it
    os.close(look)
    end(place)


def test_secrets_arrive_by_descriptor_and_stand_nowhere_else(start: Start) -> None:
    secret = "correct-horse-battery"
    kept = start("sh", "-c", "cat /dev/fd/100; echo; cat", handover=secret, env={"PATH": os.environ["PATH"]})
    kept.read_until(secret.encode() + b"\n")
    keeper = json.loads((kept.directory / "keeper").read_text())["pid"]
    for pid in (keeper, kept.first["pid"]):
        for name in ("cmdline", "environ"):
            assert secret.encode() not in Path(f"/proc/{pid}/{name}").read_bytes()
    for file in kept.directory.iterdir():
        if file.name not in ("stdout", "sock"):
            assert secret.encode() not in file.read_bytes()


def test_a_shielded_wrapper_survives_the_signal_for_its_child(start: Start) -> None:
    kept = start("sh", "-c", "echo ready; cat; exit 8", shield=True)
    kept.read_until(b"ready\n")
    kept.post("/signal?sig=INT&fence=1")
    kept.write(b"", 0, eof=True)
    kept.read_all()
    assert kept.status()["exit_code"] == 8


# The door


PREVIOUS = Path(__file__).parents[1] / "data" / "supervisor-1"  # as the first release had it


def open_door(root: Path, *, port: int = 0) -> dict[str, Any]:
    command = ["door", "--root", str(root), "--host", "127.0.0.1", "--port", str(port)]
    done = subprocess.run([*PYTHON, str(PROGRAM), *command], capture_output=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return dict(json.loads(done.stdout))


def knock(door: dict[str, Any], method: str, target: str, *, token: str = "", body: bytes = b"") -> Reply:
    connection = http.client.HTTPConnection("127.0.0.1", door["port"], timeout=30)
    return ask(connection, method, target, body=body, headers={"X-Sandpiper-Token": token or door["token"]})


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    root = tmp_path / "processes"
    yield root
    for kept in root.glob("*/keeper"):
        end(kept.parent)
    if (root / "door").exists():
        with contextlib.suppress(ProcessLookupError):
            os.kill(json.loads((root / "door").read_text())["pid"], signal.SIGKILL)


def test_the_door_leads_to_the_keepers(start: Start, root: Path) -> None:
    kept = start("cat", directory=root / "turn-1.2")
    door = open_door(root)
    assert knock(door, "POST", "/p/turn-1.2/in?off=0&fence=1&eof=1", body=b"x" * MB).status == 200
    assert kept.read_all() == b"x" * MB
    reply = knock(door, "GET", f"/p/turn-1.2/out?fd=1&from={MB - 3}")
    assert (reply.body, reply.next, reply.eof) == (b"xxx", MB, True)


def test_the_door_opens_only_for_its_token(start: Start, root: Path) -> None:
    start("cat", directory=root / "one")
    door = open_door(root)
    assert knock(door, "GET", "/p/one/status", token="another").status == 401
    assert knock(door, "GET", "/p/one/status").status == 200


def test_every_answer_of_the_door_says_whose_it_is(root: Path) -> None:
    door = open_door(root)
    for target, token in (("/status", ""), ("/status", "another"), ("/nowhere", ""), ("/p/a/in", "")):
        connection = http.client.HTTPConnection("127.0.0.1", door["port"], timeout=30)
        with contextlib.closing(connection):
            connection.request("GET", target, headers={"X-Sandpiper-Token": token or door["token"]})
            assert connection.getresponse().headers["X-Sandpiper-Door"] == "5"


def test_nothing_but_processes_is_behind_the_door(start: Start, root: Path) -> None:
    door = open_door(root)
    for target in ("/p/unknown/status", "/p/../status", "/p/.hidden/status", "/", "/p/one"):
        assert knock(door, "GET", target).status == 404


def test_the_door_starts_a_process_once_and_its_secrets_stand_nowhere(root: Path) -> None:
    door = open_door(root)
    launch = {
        "argv": ["sh", "-c", "echo $KEY; pwd; cat"],
        "env": {"KEY": "correct-horse", "PATH": os.environ["PATH"]},
        "cwd": str(root / "made" / "here"),
        "directories": [str(root / "made" / "here")],
        "fence": 1,
        "lease": 60,
    }
    first, second = (knock(door, "POST", "/p/one/keep", body=json.dumps(launch).encode()) for _ in range(2))
    assert first.json["pid"] == second.json["pid"]
    expected = f"correct-horse\n{root}/made/here\n".encode()
    wait_until(lambda: knock(door, "GET", "/p/one/out?fd=1&from=0").body == expected)
    for file in (*root.glob("*"), *root.glob("one/*")):
        if file.is_file() and file.name != "stdout":
            assert b"correct-horse" not in file.read_bytes()
    for kept in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            assert b"correct-horse" not in kept.read_bytes()


def test_what_cannot_be_started_is_said_at_the_door(root: Path) -> None:
    door = open_door(root)
    refused = knock(door, "POST", "/p/one/keep", body=b'{"argv": []}')
    assert (refused.status, refused.json["error"]) == (500, "argv is empty")


def test_a_door_is_opened_once_and_has_another_token_after_it_was_killed(root: Path) -> None:
    first = open_door(root)
    assert open_door(root) == first
    os.kill(first["pid"], signal.SIGKILL)
    second = open_door(root)
    assert second["token"] != first["token"]
    assert knock(second, "GET", "/status").status == 200
    assert (root / "door").stat().st_mode & 0o077 == 0


def test_a_door_that_listens_elsewhere_is_replaced_under_its_token(root: Path) -> None:
    first = open_door(root)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    second = open_door(root, port=port)
    assert (second["port"], second["token"]) == (port, first["token"])


def test_what_the_previous_release_keeps_is_reached_through_our_door(root: Path) -> None:
    old = [*PYTHON, str(PREVIOUS)]
    launch = json.dumps({"argv": ["cat"], "env": {"PATH": os.environ["PATH"]}, "fence": 1, "lease": 60})
    keep = [*old, "keep", "--dir", str(root / "turn-1")]
    subprocess.run(keep, input=launch.encode(), check=True, capture_output=True, timeout=30)
    theirs = [*old, "door", "--root", str(root), "--host", "127.0.0.1", "--port", "0"]
    given = b"a-token-long-enough"
    subprocess.run(theirs, input=given, check=True, capture_output=True, timeout=30)
    door = open_door(root)
    assert knock(door, "GET", "/p/turn-1/status").json["version"] == 1
    again = knock(door, "POST", "/p/turn-1/keep", body=launch.encode())
    assert (again.status, again.json["version"]) == (200, 1)
    assert knock(door, "POST", "/p/turn-1/in?off=0&fence=2&eof=1", body=b"words").status == 200
    wait_until(lambda: knock(door, "GET", "/p/turn-1/status").json["exit_code"] == 0)
    assert knock(door, "GET", "/p/turn-1/out?fd=1&from=0").body == b"words"
