"""Runs a program in its place in the box and notes when each line passes: python3 -c … FILE COMMAND ARG…

A line of the program's input is noted when it has been read, a line of its output before it is written on,
each as "in <ns> <line>" or "out <ns> <line>" by the clock that the whole machine shares. Standard library
only, for its text is handed over whole.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import IO

NOTE = re.compile(rb"(in|out) ([0-9]+) (.*)\n")


def passed(file: Path, way: str, words: str) -> list[float]:
    """When lines with these words passed "in" or "out", in seconds of the monotonic clock."""
    found = NOTE.findall(file.read_bytes())
    return [int(at) / 1e9 for name, at, line in found if name == way.encode() and words.encode() in line]


def carry(name: bytes, source: IO[bytes], target: IO[bytes], notes: int) -> None:
    for line in iter(source.readline, b""):
        os.write(notes, b"%s %d %s" % (name, time.monotonic_ns(), line))
        target.write(line)
        target.flush()
    target.close()


def main(file: str, *command: str) -> int:
    notes = os.open(Path(file).expanduser(), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as program:
        assert program.stdin and program.stdout
        carrying = (b"in", sys.stdin.buffer, program.stdin, notes)
        threading.Thread(target=carry, args=carrying, daemon=True).start()
        carry(b"out", program.stdout, sys.stdout.buffer, notes)
    return program.returncode


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
