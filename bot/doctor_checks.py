"""What a provider has to be able to do, as named checks over its port. Each finds a box that runs."""

from __future__ import annotations

import asyncio
import json
import os
import textwrap
from collections.abc import Awaitable

from bot.doctor import SLOW, Check, Failed, NotOffered, Patient
from bot.errors import (
    InputGap,
    ProcessGone,
    SandboxError,
    SandboxGone,
    SandboxNotRunning,
    StaleFence,
)
from bot.models import ExecResult, Launch, SandboxState
from bot.ports import Process

WAIT = 20.0  # seconds for words or an end that must come
ORPHAN = 600.0
READING = 300.0  # seconds for some hundred megabytes, from far away
KEY = "doctor-1"
MB = 1 << 20

# Whether a URL's own host answers, or nobody, or somebody on the way there.
REACH = textwrap.dedent("""
    import json, sys, urllib.error, urllib.request
    url, said, reached = sys.argv[1], "", False
    try:
        urllib.request.urlopen(url, timeout=15).close()
        reached = True
    except urllib.error.HTTPError as error:
        said = str(error)
        reached = url.startswith("https:") or error.code not in (403, 407, 502, 503, 504)
    except Exception as error:
        said = str(error)
    print(json.dumps({"reached": reached, "said": said}))
""")

# Each round has bytes of its own, and a pause, for spools are looked at from time to time.
ROUNDS, ROUND = 24, 4 * MB  # half as much again as a spool has
TALKS = textwrap.dedent(f"""
    import os, sys, time
    for number in range(int(sys.argv[1])):
        left = bytes([number % 256]) * {ROUND}
        while left:
            left = left[os.write(1, left):]
        with open(os.path.expanduser("~/doctor-written"), "a") as note:
            note.write(".")
        time.sleep(0.05)
""")


# A box and its life


async def works_here(it: Patient) -> None:
    await it.provider.check()


async def creates(it: Patient) -> None:
    it.made = await it.provider.create(it.labels)
    await it.made.enter()
    _same("its state", await it.made.state(), SandboxState.RUNNING)
    if not (it.made.home and it.made.workspaces and it.made.repositories):
        raise Failed("it does not say where its home, workspaces and repositories are")


async def is_found(it: Patient) -> None:
    later = it.another_life()
    _same("the boxes with its labels", [box.id for box in await later.find(it.labels)], [it.sandbox.id])
    nobody = {**it.labels, "sandpiper.doctor": "nobody"}
    _same("the boxes with labels of nobody", [box.id for box in await later.find(nobody)], [])
    again = await later.get(it.sandbox.id)
    _same("its labels", dict(again.labels), dict(it.labels))


async def an_unknown_box_is_gone(it: Patient) -> None:
    await _raises(
        SandboxGone, "asking for a box that never was", it.provider.get("never-was-0123456789abcdef")
    )


async def stops_and_starts(it: Patient) -> None:
    await it.sh("echo kept >~/doctor-note")
    process = await _spawn(it, "doctor-2", "sleep", "600")
    await it.sandbox.stop()
    _same("the state of a stopped box", await it.sandbox.state(), SandboxState.STOPPED)
    await _raises(SandboxNotRunning, "a program in a stopped box", it.sh("true"))
    await it.sandbox.start()
    _same("its state after it was started", await it.sandbox.state(), SandboxState.RUNNING)
    _same("a file of before", await it.sh("cat ~/doctor-note"), "kept")
    if (await process.status()).running:
        raise Failed("a process is told to run that a stop has ended")


async def vanishes(it: Patient) -> None:
    """Deleted by somebody else: to us it is gone, and not out of reach."""
    await (await it.another_life().get(it.sandbox.id)).delete()
    await _raises(SandboxGone, "the state of a deleted box", it.sandbox.state())
    await _raises(SandboxGone, "a program in a deleted box", it.sh("true"))
    await _raises(SandboxGone, "looking for a deleted box", it.provider.get(it.sandbox.id))
    _same("the boxes with its labels", [box.id for box in await it.provider.find(it.labels)], [])


# Short programs and files


async def runs(it: Patient) -> None:
    launch = Launch(("sh", "-c", "cat; echo err >&2; exit 7"), it.sandbox.home)
    result = await it.sandbox.run(launch, stdin=b"out")
    _same("exit code, output and stderr", result, ExecResult(7, b"out", b"err\n"))


async def has_its_own_home(it: Patient) -> None:
    said = await it.sh(
        "cd && pwd -P && id -u && stat -c %u . && touch doctor-mine && rm doctor-mine && echo ."
    )
    home, uid, owner, _ = said.split("\n")
    _same("the home", home, it.sandbox.home)
    _same("whose home it is", owner, uid)


async def passes_the_environment(it: Patient) -> None:
    script = 'printf "%s|%s|%s" "$PLAIN" "$SECRET" "$PWD"; cat /proc/[0-9]*/cmdline 2>/dev/null'
    secret = f"s3cret-{os.urandom(8).hex()}"
    launch = Launch(("sh", "-c", script), it.sandbox.home, env={"PLAIN": "a b"}, secrets={"SECRET": secret})
    said = (await it.sandbox.run(launch)).out.decode(errors="replace")
    if not said.startswith(f"a b|{secret}|{it.sandbox.home}"):
        raise Failed("a program did not get its environment, its secrets or its directory")
    if said.count(secret) > 1:
        raise Failed("a secret stands in the command line of a program")


async def moves_files(it: Patient) -> None:
    source, target = it.scratch / "source", it.scratch / "target"
    source.write_bytes(os.urandom(MB))
    path = f"{it.sandbox.home}/doctor files/it's pâté 名前.bin"
    await it.sandbox.upload(source, path)
    _same("the bytes that arrived", await it.sh('wc -c <"$1"', path), str(MB))
    await it.sandbox.download(path, target, limit=MB)
    if target.read_bytes() != source.read_bytes():
        raise Failed("a file came out other than it went in")
    await _raises(SandboxError, "a file beyond the limit", it.sandbox.download(path, target, limit=MB - 1))


async def keeps_files_in(it: Patient) -> None:
    source = it.scratch / "source"
    source.write_text("x")
    for path in (f"{it.sandbox.home}/../../doctor", "/etc/doctor"):
        await _raises(SandboxError, f"an upload to {path}", it.sandbox.upload(source, path))


async def hides_sessions(it: Patient) -> None:
    if not it.provider.separates_sessions:
        raise NotOffered(
            "a program sees all sessions of its owner; who steers has to be allowed to read them all"
        )
    mine, other = f"{it.sandbox.workspaces}/doctor-a", f"{it.sandbox.workspaces}/doctor-b"
    await it.sh('echo hidden >"$1/note"', other, visible=(other,))
    seen = await it.sh('ls "$1" "$2"', mine, it.sandbox.workspaces, visible=(mine,))
    if "doctor-b" in seen:
        raise Failed("a program sees another session's workspace, though the provider says it does not")


# Processes that are kept


async def keeps_a_process(it: Patient) -> None:
    it.kept = process = await _spawn(it, KEY, "sh", "-c", "echo ready; echo aside >&2; cat; exit 5")
    await _hears(process, b"ready\n")
    _same("stderr", await _hears(process, b"aside\n", fd=2), b"aside\n")


async def is_steered(it: Patient) -> None:
    """Its time is a steer's round trip: written, read by the program, said, heard."""
    _same("the offset after the first words", await it.process.write(0, b"one\n"), 4)
    await _hears(it.process, b"one\n", offset=6)


async def takes_words_once(it: Patient) -> None:
    for _ in range(2):
        _same("the offset after words that were sent again", await it.process.write(0, b"one\n"), 4)
    _same("the offset after an overlap", await it.process.write(2, b"e\ntwo\n"), 8)
    _same("its output", await _hears(it.process, b"two\n"), b"ready\none\ntwo\n")
    try:
        await it.process.write(100, b"lost")
    except InputGap as gap:
        _same("where to send from after a gap", gap.have, 8)
    else:
        raise Failed("words were taken, though earlier ones are missing")


async def is_attached_to(it: Patient) -> None:
    sandbox = await it.another_life().get(it.sandbox.id)
    process = await sandbox.attach(KEY, fence=2)
    _same(
        "its output, read again by another life of the bot",
        await _hears(process, b"two\n"),
        b"ready\none\ntwo\n",
    )
    _same("its output from the sixth byte on", await _hears(process, b"two\n", offset=6), b"one\ntwo\n")
    _same("the offset after words of the other life", await process.write(8, b"three\n"), 14)
    await _raises(StaleFence, "words of the life before", it.process.write(14, b"late"))
    it.kept = process


async def ends_with_its_code(it: Patient) -> None:
    await it.process.write(14, b"", eof=True)
    _same("its exit code", await _ended(it.process), 5)
    chunk = await it.process.read(1, 6, ack=6, wait=WAIT)
    _same("the rest of its output", chunk.data, b"one\ntwo\nthree\n")
    await it.process.forget()
    await _raises(ProcessGone, "a process that was forgotten", it.sandbox.attach(KEY, fence=3))


async def is_signalled(it: Patient) -> None:
    script = "trap 'echo stopped; exit 3' INT; echo ready; while :; do sleep 0.05; done"
    process = await _spawn(it, "doctor-3", "sh", "-c", script)
    await _hears(process, b"ready\n")
    await process.signal("INT")
    await _hears(process, b"stopped\n")
    _same("the exit code that it chose", await _ended(process), 3)
    stubborn = await _spawn(
        it, "doctor-4", "sh", "-c", "trap '' INT TERM; echo ready; while :; do sleep 0.05; done"
    )
    await _hears(stubborn, b"ready\n")
    await stubborn.signal("KILL")
    if await _ended(stubborn) in (0, None):
        raise Failed("a killed process has no exit code that says so")


async def slows_who_is_not_read(it: Patient) -> None:
    """More than a spool holds: it waits there for its reader, and all of it comes."""
    process = await _spawn(it, "doctor-6", "python3", "-c", TALKS, str(ROUNDS))
    written, before = 0, -1
    while written != before or not written:  # it may only be slow: then less waits, and no harm is done
        await asyncio.sleep(1.0)
        before, written = written, int(await it.sh("cat ~/doctor-written 2>/dev/null | wc -c"))
    if written >= ROUNDS:
        raise Failed(f"{ROUNDS * ROUND / MB:g} MB that nobody reads are kept: nothing slows a program down")
    if not (status := await process.status()).running:
        raise Failed(f"a program that nobody reads was ended (exit code {status.exit_code})")
    seen, ack = 0, 0
    while True:
        chunk = await process.read(1, seen, ack=ack, wait=WAIT, limit=ROUND)
        for at in range(0, len(chunk.data), ROUND // 64):
            _same(f"the byte at {seen + at}", chunk.data[at], (seen + at) // ROUND % 256)
        _same("the offset after what was read", chunk.next, seen + len(chunk.data))
        seen, ack = chunk.next, seen
        if chunk.eof:
            break
    _same("the bytes that arrived", seen, ROUNDS * ROUND)
    _same("its exit code", await _ended(process), 0)


async def ends_orphans(it: Patient) -> None:
    process = await _spawn(it, "doctor-5", "sleep", "600")
    await process.lease(0.5)
    await _ended(process)


# The way out


async def reaches(it: Patient) -> None:
    if not it.hosts.allowed:
        raise NotOffered("no host is named that it should reach")
    reached, said = await _reach(it, it.hosts.allowed)
    if not reached:
        raise Failed(f"{it.hosts.allowed} is not reached: {said}")


async def refuses(it: Patient) -> None:
    if not it.hosts.refused:
        raise NotOffered("no host is refused")
    if (await _reach(it, it.hosts.refused))[0]:
        raise Failed(f"{it.hosts.refused} is reached")


async def names_the_refused(it: Patient) -> None:
    if not await it.sandbox.denied_hosts(0.0):
        raise NotOffered("it does not tell which hosts it refused, so threads don't either")


async def _reach(it: Patient, url: str) -> tuple[bool, str]:
    launch = Launch(("python3", "-c", REACH, url), it.sandbox.home, loopback=it.hosts.loopback)
    result = await it.sandbox.run(launch)
    if result.code != 0:
        raise Failed(f"python3 in the box ended with {result.code}: {result.err.decode(errors='replace')}")
    said = json.loads(result.out)
    return bool(said["reached"]), str(said["said"])


# How


async def _spawn(it: Patient, key: str, *argv: str) -> Process:
    return await it.sandbox.spawn(key, Launch(argv, it.sandbox.home), fence=1, orphan_after=ORPHAN)


async def _hears(process: Process, words: bytes, *, fd: int = 1, offset: int = 0) -> bytes:
    """What it says from an offset on, as soon as these words are in it."""
    heard = b""
    try:
        async with asyncio.timeout(WAIT):
            while words not in heard:
                chunk = await process.read(fd, offset + len(heard), ack=0, wait=WAIT)
                heard += chunk.data
                _same("the offset after what was read", chunk.next, offset + len(heard))
                if chunk.eof:
                    break
    except TimeoutError:
        pass
    if words not in heard:
        raise Failed(f"{words!r} was not heard within {WAIT:g} s, but {heard[-200:]!r}")
    return heard


async def _ended(process: Process) -> int | None:
    try:
        async with asyncio.timeout(WAIT):
            while (status := await process.status()).running:  # noqa: ASYNC110 it ends far away
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise Failed(f"it still runs after {WAIT:g} s") from None
    return status.exit_code


async def _raises(error: type[SandboxError], what: str, call: Awaitable[object]) -> None:
    try:
        got = await call
    except error:
        return
    except SandboxError as other:
        raise Failed(f"{what} is {type(other).__name__} ({other.what}) and not {error.__name__}") from other
    raise Failed(f"{what} is no error, but gives {got!r}")


def _same(what: str, seen: object, expected: object) -> None:
    if seen != expected:
        raise Failed(f"{what}: {seen!r}, and not {expected!r}")


OPERATOR = "Check the provider's settings (SANDPIPER_…) and what its own pages say of its state."
PROVIDER = "The provider breaks the contract of sandboxes (tests/contracts/provider): don't trust work to it."
IMAGE = "Check what the box is made of: it needs sh, coreutils, Python 3.9 as python3, and an own home."
LOST = "Boxes lose work here. Check what the provider keeps over a stop (disk or volume)."
LEAKS = "Programs get out of bounds here: don't let agents work in it before this is mended."
RUNNING = ("a box is made",)

CHECKS: tuple[Check, ...] = (
    Check("it can work here", works_here, OPERATOR, patience=SLOW),
    Check("a box is made", creates, OPERATOR, ("it can work here",), patience=SLOW),
    Check("it is found by labels and id", is_found, "Work would be lost: a box is only found so.", RUNNING),
    Check("an unknown box is gone", an_unknown_box_is_gone, PROVIDER, RUNNING),
    Check("output, stderr, exit code", runs, IMAGE, RUNNING),
    Check("home and user", has_its_own_home, IMAGE, RUNNING),
    Check("environment and secrets", passes_the_environment, LEAKS, RUNNING),
    Check("files in and out", moves_files, PROVIDER, RUNNING),
    Check("no file elsewhere", keeps_files_in, LEAKS, RUNNING),
    Check("a process is kept", keeps_a_process, PROVIDER, RUNNING),
    Check("a steer and its echo", is_steered, PROVIDER, ("a process is kept",)),
    Check("each word once, in order", takes_words_once, PROVIDER, ("a steer and its echo",)),
    Check("another bot goes on with it", is_attached_to, PROVIDER, ("each word once, in order",)),
    Check("its end and exit code", ends_with_its_code, PROVIDER, ("another bot goes on with it",)),
    Check("interrupt and kill", is_signalled, PROVIDER, RUNNING),
    Check("nobody reads: it is slowed", slows_who_is_not_read, PROVIDER, RUNNING, patience=READING),
    Check("an orphan ends itself", ends_orphans, "Agents without their bot would run on, and cost.", RUNNING),
    Check("sessions are hidden", hides_sessions, LEAKS, RUNNING),
    Check(
        "egress: an allowed host",
        reaches,
        "Agents reach neither their model nor registries: check SANDPIPER_EGRESS_MODE and the network.",
        RUNNING,
    ),
    Check("egress: a refused host", refuses, LEAKS, ("egress: an allowed host",)),
    Check("egress: who was refused", names_the_refused, PROVIDER, ("egress: a refused host",)),
    Check("a stop keeps files", stops_and_starts, LOST, RUNNING, patience=SLOW),
    Check("a deleted box is gone", vanishes, PROVIDER, RUNNING, patience=SLOW),
)
