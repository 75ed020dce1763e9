"""`make agents`: the real agents, at the versions that the product pins, for the tests that drive them.

They go into a cache outside the checkout, with a Node.js that is new enough for all of them.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

from bot.app_agents import PINS
from tests.agents.playing import CACHE

ALSO = ("@agentclientprotocol/claude-agent-acp@0.100.0", "node@24.21.0")


def missing() -> list[str]:
    """What is not there, or in another version."""
    wanted = [*(package for packages in PINS.values() for package in packages), *ALSO]
    return [package for package in wanted if f"{package.rpartition('@')[0]}@{_version(package)}" != package]


def _version(package: str) -> str:
    name = package.rpartition("@")[0]
    try:
        about = json.loads((CACHE / "node_modules" / name / "package.json").read_text())
    except (OSError, ValueError):
        return ""
    return str(about.get("version", ""))


def main() -> int:
    packages = missing()
    if not packages:
        print(f"All agents are in {CACHE}")
        return 0
    if shutil.which("npm") is None:
        print("npm is not installed, so no agent can be.", file=sys.stderr)
        return 1
    CACHE.mkdir(parents=True, exist_ok=True)
    print(f"Installing {', '.join(packages)} into {CACHE}", flush=True)
    npm = ["npm", "install", "--prefix", str(CACHE), "--no-audit", "--no-fund", "--loglevel=error", *packages]
    return subprocess.run(npm, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
