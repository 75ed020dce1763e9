"""What every provider promises about processes: kept while the bot comes and goes, by byte offsets."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest

from bot.errors import InputGap, ProcessGone, SandboxError, StaleFence
from bot.models import Launch
from bot.ports import Process, Sandbox
from tests.contracts.provider.conftest import Make

MB = 1 << 20
NOTHING: Mapping[str, str] = {}


async def spawn(
    sandbox: Sandbox, *argv: str, key: str = "turn-1-1", fence: int = 1, secrets: Mapping[str, str] = NOTHING
) -> Process:
    launch = Launch(argv, cwd=sandbox.home, secrets=secrets)
    return await sandbox.spawn(key, launch, fence=fence, orphan_after=60)


async def read_all(process: Process, fd: int = 1, offset: int = 0) -> bytes:
    data = b""
    while True:
        chunk = await process.read(fd, offset + len(data), ack=0, wait=20)
        data += chunk.data
        assert chunk.next == offset + len(data)
        if chunk.eof:
            return data


async def read_until(process: Process, expected: bytes) -> bytes:
    data = b""
    while expected not in data:
        chunk = await process.read(1, len(data), ack=0, wait=20)
        assert chunk.data, f"ended with {data!r}, waiting for {expected!r}"
        data += chunk.data
    return data


async def ended(process: Process) -> int | None:
    """Its exit code, once it has ended."""
    async with asyncio.timeout(20):
        while (status := await process.status()).running:  # noqa: ASYNC110 another process ends
            await asyncio.sleep(0.02)
    return status.exit_code


async def test_a_process_talks_and_ends(sandbox: Sandbox) -> None:
    process = await spawn(sandbox, "sh", "-c", "echo hello; cat; echo bye >&2; exit 7")
    assert await read_until(process, b"hello\n") == b"hello\n"
    assert await process.write(0, b"words\n") == 6
    assert await process.write(6, b"", eof=True) == 6
    assert await read_all(process) == b"hello\nwords\n"
    assert await read_all(process, fd=2) == b"bye\n"
    assert await ended(process) == 7
    assert (await process.status()).in_offset == 6


async def test_output_is_read_again_from_any_offset(sandbox: Sandbox) -> None:
    process = await spawn(sandbox, "printf", r"one\000\ntwo, unfinished")
    assert await read_all(process) == b"one\0\ntwo, unfinished"
    assert await read_all(process, offset=5) == b"two, unfinished"
    assert (await process.read(1, 5, ack=5, wait=0, limit=3)).data == b"two"


async def test_bytes_of_every_kind_go_both_ways(sandbox: Sandbox) -> None:
    process = await spawn(sandbox, "cat")
    every = bytes(range(256)) * 3 + b"\r\n\0, unfinished"
    await process.write(0, every, eof=True)
    assert await read_all(process) == every


async def test_bytes_below_the_acknowledged_offset_are_not_asked_for_again(sandbox: Sandbox) -> None:
    process = await spawn(sandbox, "sh", "-c", "echo one; echo two; cat")
    await read_until(process, b"two\n")
    assert (await process.read(1, 4, ack=4, wait=20)).data == b"two\n"
    with pytest.raises(ProcessGone):
        await process.read(1, 0, ack=0, wait=0)
    assert (await process.read(1, 4, ack=0, wait=20)).data == b"two\n"


async def test_a_read_waits_for_the_first_byte_and_no_longer_than_asked(sandbox: Sandbox) -> None:
    process = await spawn(sandbox, "cat")
    chunk = await process.read(1, 0, ack=0, wait=0.1)
    assert (chunk.data, chunk.next, chunk.eof) == (b"", 0, False)
    reading = asyncio.ensure_future(process.read(1, 0, ack=0, wait=20))
    await process.write(0, b"now")
    assert (await reading).data == b"now"


async def test_a_line_of_four_megabytes(sandbox: Sandbox) -> None:
    process = await spawn(sandbox, "cat")
    line = b"x" * (4 * MB + 3) + b"\n"
    assert await process.write(0, line, eof=True) == len(line)
    assert await read_all(process) == line


async def test_input_is_taken_once_however_often_it_is_sent(sandbox: Sandbox) -> None:
    process = await spawn(sandbox, "cat")
    for _ in range(3):
        assert await process.write(0, b"once\n") == 5
    assert await process.write(2, b"ce\nmore\n", eof=True) == 10
    assert await read_all(process) == b"once\nmore\n"


async def test_a_gap_in_the_input_says_where_to_resend_from(sandbox: Sandbox) -> None:
    process = await spawn(sandbox, "cat")
    await process.write(0, b"abc")
    with pytest.raises(InputGap) as gap:
        await process.write(9, b"z")
    assert gap.value.have == 3


async def test_whoever_has_a_stale_fence_can_do_nothing(sandbox: Sandbox) -> None:
    old = await spawn(sandbox, "cat", fence=1)
    new = await sandbox.attach("turn-1-1", fence=2)
    await new.write(0, b"new")
    for verb in (old.write(3, b"old"), old.signal("KILL"), old.lease(1)):
        with pytest.raises(StaleFence):
            await verb
    assert (await new.status()).running


async def test_spawning_twice_is_one_process(sandbox: Sandbox) -> None:
    script = ("sh", "-c", "echo $$ >>~/pids; cat")
    first, second = await asyncio.gather(spawn(sandbox, *script), spawn(sandbox, *script))
    await first.write(0, b"to the first", eof=True)
    assert await read_all(second) == b"to the first"
    other = await spawn(sandbox, "sh", "-c", "wc -l <~/pids", key="turn-1-2")
    assert (await read_all(other)).strip() == b"1"


async def test_an_unknown_process_is_gone(sandbox: Sandbox) -> None:
    with pytest.raises(ProcessGone):
        await sandbox.attach("turn-9-9", fence=1)


async def test_a_key_that_leads_elsewhere_is_refused(sandbox: Sandbox) -> None:
    for key in ("../other", "", ".hidden", "a/b"):
        with pytest.raises(SandboxError):
            await spawn(sandbox, "true", key=key)


async def test_another_life_of_the_bot_goes_on_where_the_first_stopped(make: Make, sandbox: Sandbox) -> None:
    process = await spawn(sandbox, "sh", "-c", "echo one; read line; echo two $line; cat")
    assert await read_until(process, b"one\n") == b"one\n"
    later = await (await make().get(sandbox.id)).attach("turn-1-1", fence=2)
    assert await later.write(0, b"words\n", eof=True) == 6
    assert await read_all(later, offset=4) == b"two words\n"


async def test_int_interrupts_and_the_exit_code_is_the_programs_own(sandbox: Sandbox) -> None:
    script = "trap 'echo interrupted; exit 5' INT; echo ready; while :; do sleep 0.05; done"
    process = await spawn(sandbox, "sh", "-c", script)
    await read_until(process, b"ready\n")
    await process.signal("INT")
    assert await read_all(process) == b"ready\ninterrupted\n"
    assert await ended(process) == 5
    await process.signal("KILL")


async def test_kill_ends_it(sandbox: Sandbox) -> None:
    process = await spawn(sandbox, "sh", "-c", "trap '' INT TERM; echo ready; while :; do sleep 0.05; done")
    await read_until(process, b"ready\n")
    await process.signal("KILL")
    assert await ended(process) not in (0, None)


async def test_an_orphan_ends_itself(sandbox: Sandbox) -> None:
    process = await spawn(sandbox, "sleep", "600")
    await process.lease(0.2)
    assert await ended(process) not in (0, None)


async def test_who_is_read_from_is_no_orphan(sandbox: Sandbox) -> None:
    launch = Launch(("cat",), cwd=sandbox.home)
    process = await sandbox.spawn("turn-1-1", launch, fence=1, orphan_after=2.0)
    for _ in range(2):
        await process.read(1, 0, ack=0, wait=1.5)
    assert (await process.status()).running
    assert await process.write(0, b"words", eof=True) == 5
    assert await ended(process) == 0


async def test_output_and_end_stay_readable_when_the_keeper_has_left(sandbox: Sandbox) -> None:
    process = await spawn(sandbox, "sh", "-c", "echo rest; exit 6")
    assert await ended(process) == 6
    await process.lease(0)
    assert await read_all(process) == b"rest\n"
    assert await ended(process) == 6
    await process.signal("TERM")
    assert await process.write(0, b"", eof=True) == 0


async def test_writing_to_what_has_ended_is_an_error_but_closing_is_not(sandbox: Sandbox) -> None:
    process = await spawn(sandbox, "true")
    await ended(process)
    assert await process.write(0, b"", eof=True) == 0
    with pytest.raises(ProcessGone):
        await process.write(0, b"too late")


async def test_a_missing_program_ends_with_127_and_says_its_name(sandbox: Sandbox) -> None:
    process = await spawn(sandbox, "no-such-agent", "--flag")
    assert await ended(process) == 127


async def test_a_forgotten_process_is_gone(sandbox: Sandbox) -> None:
    process = await spawn(sandbox, "cat")
    with pytest.raises(SandboxError):
        await process.forget()
    await process.write(0, b"", eof=True)
    await ended(process)
    await process.forget()
    await process.forget()
    with pytest.raises(ProcessGone):
        await process.status()
    with pytest.raises(ProcessGone):
        await sandbox.attach("turn-1-1", fence=1)


async def test_secrets_are_in_the_environment(sandbox: Sandbox) -> None:
    process = await spawn(sandbox, "sh", "-c", "echo $KEY", secrets={"KEY": "s3cret"})
    assert await read_all(process) == b"s3cret\n"


TALKATIVE = """
n=0
while test $n -lt $1; do head -c 4194304 /dev/zero; n=$((n+1)); echo $n >~/written; done
"""


async def test_a_reader_that_falls_behind_slows_the_agent_and_never_ends_it(sandbox: Sandbox) -> None:
    """More than fits into the spool: it waits there for its reader, and all of it comes."""
    rounds = 32
    process = await spawn(sandbox, "sh", "-c", TALKATIVE, "sh", str(rounds))
    written = [-1, -2]
    async with asyncio.timeout(60):
        while written[-1] != written[-2] or not written[-1]:
            await asyncio.sleep(0.5)
            said = await sandbox.run(Launch(("sh", "-c", "cat ~/written || echo 0"), sandbox.home))
            written.append(int(said.out or b"0"))
    assert written[-1] < rounds, "it waits"
    assert (await process.status()).running
    size, ack = 0, 0
    while True:
        chunk = await process.read(1, size, ack=ack, wait=20, limit=4 * MB)
        assert not chunk.data.strip(b"\0")
        size, ack = chunk.next, size
        if chunk.eof:
            break
    assert size == rounds * 4 * MB
    assert await ended(process) == 0
