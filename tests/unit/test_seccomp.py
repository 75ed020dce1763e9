"""The system call filter, run as a kernel would run it."""

from __future__ import annotations

import re
import struct
from errno import ENOSYS, EPERM
from pathlib import Path

import pytest

from sandbox.seccomp import ALLOW, ARCHITECTURES, CLONE3, COMMON, KILL, X32, program

HEADERS = {
    "x86_64": Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
    "aarch64": Path("/usr/include/asm-generic/unistd.h"),
}
OTHERS = {"i386": 0x40000003, "arm": 0x40000028}
CLONE_VM, CLONE_NEWUSER, CLONE_NEWNET, CLONE_NEWTIME = 0x100, 0x10000000, 0x40000000, 0x80


def judge(machine: str, number: int, *arguments: int, audit: int | None = None) -> int:
    """What the filter says to a call."""
    filter = program(machine)
    assert filter is not None
    data = struct.pack(
        "=IIQ6Q",
        number,
        ARCHITECTURES[machine].audit if audit is None else audit,
        0,
        *[*arguments, 0, 0, 0, 0, 0, 0][:6],
    )
    steps = list(struct.iter_unpack("=HBBI", filter))
    value, at = 0, 0
    while True:
        operation, yes, no, operand = steps[at]
        at += 1
        if operation == 0x20:
            [value] = struct.unpack_from("=I", data, operand)
        elif operation == 0x06:
            return int(operand)
        else:
            holds = {
                0x15: value == operand,
                0x35: value >= operand,
                0x45: bool(value & operand),
            }[operation]
            at += yes if holds else no


def refused(error: int) -> int:
    return 0x00050000 | error


machines = pytest.mark.parametrize("machine", ARCHITECTURES)


@machines
def test_what_no_agent_needs_is_refused(machine: str) -> None:
    for name, number in {**ARCHITECTURES[machine].refused, **COMMON}.items():
        assert judge(machine, number) == refused(EPERM), name


@machines
def test_everything_else_is_allowed(machine: str) -> None:
    here = ARCHITECTURES[machine]
    looked_at = {here.clone, here.unshare, here.ioctl, here.socket, here.socketpair, CLONE3}
    for number in set(range(500)) - {*here.refused.values(), *COMMON.values()} - looked_at:
        assert judge(machine, number) == ALLOW, number


@machines
def test_new_namespaces_are_refused_and_new_threads_are_not(machine: str) -> None:
    here = ARCHITECTURES[machine]
    for call in (here.clone, here.unshare):
        for flags in (CLONE_NEWUSER, CLONE_NEWNET | CLONE_VM, CLONE_NEWTIME):
            assert judge(machine, call, flags) == refused(EPERM)
    assert judge(machine, here.clone, 0x3D0F00) == ALLOW, "a thread, by glibc"
    assert judge(machine, here.clone, 0x1200011) == ALLOW, "fork, by glibc"
    assert judge(machine, CLONE3) == refused(ENOSYS)


@machines
def test_typing_into_a_terminal_is_refused(machine: str) -> None:
    ioctl = ARCHITECTURES[machine].ioctl
    for request in (0x5412, 0x541C, 0x5412 | 1 << 32):
        assert judge(machine, ioctl, 0, request) == refused(EPERM)
    assert judge(machine, ioctl, 0, 0x5413) == ALLOW, "its size may be asked for"


@machines
def test_of_the_families_of_sockets_only_the_common_ones_are_there(machine: str) -> None:
    here = ARCHITECTURES[machine]
    for call in (here.socket, here.socketpair):
        for family in (1, 2, 10):
            assert judge(machine, call, family, 1, 6) == ALLOW
        assert judge(machine, call, 16, 3, 0) == ALLOW, "netlink, to ask for interfaces"
        assert judge(machine, call, 16, 3, 12) == refused(EPERM), "netlink, to filter packets"
        for family in (0, 3, 17, 30, 38, 40, 44, 1000):
            assert judge(machine, call, family, 1, 0) == refused(EPERM), family


@machines
@pytest.mark.parametrize("other", OTHERS)
def test_the_entry_points_of_other_architectures_are_shut(machine: str, other: str) -> None:
    assert judge(machine, 1, audit=OTHERS[other]) == KILL


def test_the_entry_points_of_x32_are_shut() -> None:
    for number in (0, 1, 321, 520):
        assert judge("x86_64", X32 | number) == refused(ENOSYS)


def test_there_is_none_for_other_machines() -> None:
    assert program("riscv64") is None


@machines
def test_the_numbers_are_those_of_the_kernels_headers(machine: str) -> None:
    header = HEADERS[machine]
    if not header.exists():
        pytest.skip("this machine has no kernel headers")
    found = re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", header.read_text())
    numbers = {name: int(number) for name, number in found}
    here = ARCHITECTURES[machine]
    ours = {
        **here.refused,
        **COMMON,
        "clone": here.clone,
        "clone3": CLONE3,
        "unshare": here.unshare,
        "ioctl": here.ioctl,
        "socket": here.socket,
        "socketpair": here.socketpair,
    }
    known = {name: number for name, number in ours.items() if name in numbers}
    assert known == {name: numbers[name] for name in known}
    assert len(known) > 30
