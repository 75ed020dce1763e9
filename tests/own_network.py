"""A network of a test's own: public addresses are this machine's there, and names are what the test says."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.boxes import cannot_be_tested

# Who is not root is it for as long as it takes to set this up, and not a moment longer.
_UNSHARE = ("unshare", "--net", "--mount")
_AS_NOBODY_ELSE = ("--user", "--map-current-user", "--keep-caps")
_GIVE_UP = "setpriv --inh-caps=-all --ambient-caps=-all -- "


def in_own_network(directory: Path, names: Mapping[str, str], command: Sequence[str]) -> list[str]:
    """The command, to be run where nothing but these names and their addresses is reached."""
    root = os.geteuid() == 0
    unshare = [*_UNSHARE, *(() if root else _AS_NOBODY_ELSE)]
    done = subprocess.run([*unshare, "true"], capture_output=True, check=False)
    if done.returncode:
        cannot_be_tested(f"no network of one's own here: {done.stderr.decode().strip()}")
    hosts = directory / "hosts"
    hosts.write_text("127.0.0.1 localhost\n" + "".join(f"{names[name]} {name}\n" for name in names))
    hosts.chmod(0o644)
    script = [f"mount --bind {shlex.quote(str(hosts))} /etc/hosts", "ip link set lo up"]
    script += [f"ip address add {address}/32 dev lo" for address in dict.fromkeys(names.values())]
    script += ["echo 0 >/proc/sys/net/ipv4/ip_unprivileged_port_start"]
    script += [f"exec {'' if root else _GIVE_UP}{shlex.join(command)}"]
    return [*unshare, "sh", "-ec", "\n".join(script)]
