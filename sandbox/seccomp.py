"""The system call filter of a local box: what a coding agent has no use for, and kernels have had holes in.

A list of what is refused, not of what is allowed: compilers, browsers and language runtimes use nearly
everything else, and a new call must not break them. Refused with EPERM, and with ENOSYS where programs know
an older way. The program is classic BPF, as bwrap's --seccomp reads it; why it is assembled here is told in
docs/decisions/0014-system-call-filter.md.

ptrace stays, for debuggers: a box has its own processes only.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

# struct sock_filter and its operations (linux/filter.h), what a filter returns (linux/seccomp.h).
LOAD, EQUALS, AT_LEAST, HAS_BITS, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
ALLOW, KILL = 0x7FFF0000, 0x80000000
NUMBER, ARCHITECTURE, ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data; arguments are 8 bytes each
X32 = 0x40000000  # the bit in the numbers of x86-64's second, nearly unused table

# CLONE_NEWNS, …CGROUP, UTS, IPC, USER, PID, NET (linux/sched.h), and …TIME, whose bit is of no other use.
NAMESPACES = 0x7E020080
TIOCSTI, TIOCLINUX = 0x5412, 0x541C  # they write into a terminal as if somebody typed
UNIX, INET, INET6, NETLINK = 1, 2, 10, 16
NETLINK_ROUTE = 0  # how programs ask for their interfaces


@dataclass(frozen=True, slots=True)
class Architecture:
    """audit: its name for itself (linux/audit.h). The rest: numbers of its system calls."""

    audit: int
    clone: int
    unshare: int
    ioctl: int
    socket: int
    socketpair: int
    refused: Mapping[str, int]


# fmt: off  a line per kind

# Since 5.0, new calls have one number everywhere.
COMMON = {
    "io_uring_setup": 425,
    "io_uring_enter": 426,
    "io_uring_register": 427,
    "open_tree": 428,
    "move_mount": 429,
    "fsopen": 430,
    "fsconfig": 431,
    "fsmount": 432,
    "fspick": 433,
    "mount_setattr": 442,
    "quotactl_fd": 443,
    "open_tree_attr": 467,
}
CLONE3 = 435  # its flags are behind a pointer, where no filter can look

# By the names of `platform.machine()`; the numbers are those of asm/unistd_64.h and asm-generic/unistd.h.
ARCHITECTURES = {
    "x86_64": Architecture(
        0xC000003E,
        clone=56,
        unshare=272,
        ioctl=16,
        socket=41,
        socketpair=53,
        refused={
            "mount": 165,
            "umount2": 166,
            "pivot_root": 155,
            "chroot": 161,
            "setns": 308,
            "bpf": 321,
            "perf_event_open": 298,
            "userfaultfd": 323,
            "add_key": 248,
            "request_key": 249,
            "keyctl": 250,
            "init_module": 175,
            "finit_module": 313,
            "delete_module": 176,
            "kexec_load": 246,
            "kexec_file_load": 320,
            "reboot": 169,
            "open_by_handle_at": 304,
            "quotactl": 179,
            "acct": 163,
            "swapon": 167,
            "swapoff": 168,
            "syslog": 103,
            "vhangup": 153,
            "settimeofday": 164,
            "clock_settime": 227,
            "lookup_dcookie": 212,
            "nfsservctl": 180,
            "iopl": 172,
            "ioperm": 173,
            "modify_ldt": 154,
            "uselib": 134,
            "sysfs": 139,
            "_sysctl": 156,
        },
    ),
    "aarch64": Architecture(
        0xC00000B7,
        clone=220,
        unshare=97,
        ioctl=29,
        socket=198,
        socketpair=199,
        refused={
            "mount": 40,
            "umount2": 39,
            "pivot_root": 41,
            "chroot": 51,
            "setns": 268,
            "bpf": 280,
            "perf_event_open": 241,
            "userfaultfd": 282,
            "add_key": 217,
            "request_key": 218,
            "keyctl": 219,
            "init_module": 105,
            "finit_module": 273,
            "delete_module": 106,
            "kexec_load": 104,
            "kexec_file_load": 294,
            "reboot": 142,
            "open_by_handle_at": 265,
            "quotactl": 60,
            "acct": 89,
            "swapon": 224,
            "swapoff": 225,
            "syslog": 116,
            "vhangup": 58,
            "settimeofday": 170,
            "clock_settime": 112,
            "lookup_dcookie": 18,
            "nfsservctl": 42,
        },
    ),
}
# fmt: on


def program(machine: str) -> bytes | None:
    """The filter for a machine of this architecture; None: we have none for it."""
    here = ARCHITECTURES.get(machine)
    if here is None:
        return None
    refuse, missing, allow = failing(errno.EPERM), failing(errno.ENOSYS), step(RETURN, ALLOW)
    steps = [
        # Whoever enters by the table of another architecture (32 bits) does not go on.
        step(LOAD, ARCHITECTURE),
        step(EQUALS, here.audit, yes=1),
        step(RETURN, KILL),
        step(LOAD, NUMBER),
    ]
    if machine == "x86_64":
        steps += [step(AT_LEAST, X32, no=1), missing]
    for number in [*here.refused.values(), *COMMON.values()]:
        steps += when(number, [refuse])
    steps += when(CLONE3, [missing])  # glibc and the others then call clone
    for number in (here.clone, here.unshare):
        steps += when(number, [argument(0), step(HAS_BITS, NAMESPACES, no=1), refuse, allow])
    terminal = [argument(1), step(EQUALS, TIOCSTI, yes=1), step(EQUALS, TIOCLINUX, no=1), refuse, allow]
    steps += when(here.ioctl, terminal)
    # No vsock (to the host of a virtual machine), no packets, none of the many families hardly ever used.
    family = [
        argument(0),
        *(step(EQUALS, UNIX, yes=6), step(EQUALS, INET, yes=5), step(EQUALS, INET6, yes=4)),
        *(step(EQUALS, NETLINK, no=2), argument(2), step(EQUALS, NETLINK_ROUTE, yes=1)),
        refuse,
        allow,
    ]
    for number in (here.socket, here.socketpair):
        steps += when(number, family)
    return b"".join([*steps, allow])


def step(operation: int, operand: int, *, yes: int = 0, no: int = 0) -> bytes:
    """One instruction. yes, no: how many steps to skip after a comparison."""
    return struct.pack("=HBBI", operation, yes, no, operand)


def failing(error: int) -> bytes:
    return step(RETURN, 0x00050000 | error)


def argument(index: int) -> bytes:
    """Load the lower half of an argument: all of an int, on these machines."""
    return step(LOAD, ARGUMENTS + 8 * index)


def when(number: int, steps: Iterable[bytes]) -> list[bytes]:
    """Steps, the last of which returns, for one system call."""
    body = list(steps)
    return [step(EQUALS, number, no=len(body)), *body]
