"""The operator's own certificate authorities, where programs in a sandbox and the bot look for such."""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from bot.errors import SandboxError, SettingsError
from bot.models import Launch
from bot.ports import Sandbox

# Where systems keep all that they trust in one file: Debian, Fedora (two names), SUSE, Alpine.
SYSTEM = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)

# What these name is trusted besides what a program knows, or (the others) in its place.
ADDED = ("NODE_EXTRA_CA_CERTS", "DENO_CERT")
REPLACED = (
    "SSL_CERT_FILE",  # OpenSSL, Python, Go, Ruby, and much that is written in Rust
    "CURL_CA_BUNDLE",
    "GIT_SSL_CAINFO",
    "REQUESTS_CA_BUNDLE",
    "PIP_CERT",
    "CARGO_HTTP_CAINFO",
    "npm_config_cafile",  # where there is such a setting already, Node.js' own does not count
)
OURSELVES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "GIT_SSL_CAINFO")

# $1 a directory, then where systems keep theirs; stdin: the operator's. Each file is changed in one step, for
# programs read it meanwhile.
_BRING = r"""
set -e
goal=$1; shift
mkdir -p -- "$goal"
own=$(mktemp "$goal/.own.XXXXXX")
all=$(mktemp "$goal/.all.XXXXXX")
cat >"$own"
for system in "$@"; do
    if test -s "$system"; then cat -- "$system" >"$all"; echo >>"$all"; break; fi
done
cat -- "$own" >>"$all"
chmod 644 "$own" "$all"
mv -f -- "$own" "$goal/own.pem"
mv -f -- "$all" "$goal/all.pem"
"""


@dataclass(frozen=True, slots=True)
class Trust:
    """bundle: certificates in PEM; empty: nothing is done."""

    bundle: bytes = b""

    async def bring(self, sandbox: Sandbox) -> None:
        """Put it, alone and with what its system trusts, where no turn can change it. Raises SandboxError."""
        if not self.bundle:
            return
        argv = ("/bin/sh", "-c", _BRING, "trust", _directory(sandbox), *SYSTEM)
        done = await sandbox.run(Launch(argv, "/", installs=True), stdin=self.bundle)
        if done.code:
            said = done.err.decode(errors="replace").strip()[-300:] or f"exit code {done.code}"
            raise SandboxError(f"The certificates of SANDPIPER_CA_BUNDLE cannot be put there: {said}")

    def into(self, sandbox: Sandbox, launch: Launch) -> Launch:
        """The launch with the variables that name it; those that it has already stay."""
        if not self.bundle:
            return launch
        where = _directory(sandbox)
        variables = dict.fromkeys(ADDED, f"{where}/own.pem")
        variables |= dict.fromkeys(REPLACED, f"{where}/all.pem")
        return replace(launch, env={**variables, **launch.env})


NO_TRUST = Trust()


def _directory(sandbox: Sandbox) -> str:
    return f"{sandbox.agents}/certificates"


def read_bundle(path: Path, variable: str) -> bytes:
    """The certificates in a file. Raises SettingsError that names the variable."""
    mend = "Name a file with certificates in PEM, and nothing else."
    try:
        bundle = path.expanduser().read_bytes()
        if b"PRIVATE KEY" in bundle:
            raise SettingsError(f"{variable}: {path} holds a private key, which sandboxes would see.", mend)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cadata=bundle.decode("ascii"))
    except (ssl.SSLError, ValueError) as error:
        raise SettingsError(f"{variable}: {path} holds no certificates in PEM.", mend) from error
    except OSError as error:
        raise SettingsError(f"{variable}: {path} cannot be read ({error.strerror}).", mend) from error
    return bundle if bundle.endswith(b"\n") else bundle + b"\n"


def trust_it_ourselves(
    bundle: bytes, directory: Path, environment: Mapping[str, str] = os.environ
) -> dict[str, str]:
    """Variables by which this process, and the git that it runs, trust the bundle besides what they trust
    already. The file that they name is written into the directory."""
    known = environment.get("SSL_CERT_FILE") or next((path for path in SYSTEM if Path(path).is_file()), "")
    combined = directory / "certificates.pem"
    directory.mkdir(parents=True, exist_ok=True)
    part = combined.with_suffix(".part")
    part.write_bytes((Path(known).read_bytes() + b"\n" if known else b"") + bundle)
    part.replace(combined)
    return dict.fromkeys(OURSELVES, str(combined.absolute()))
