"""Registries where the world knows them, and a box as the settings in the environment describe it.

Run in a network of its own (test_registries.py). stdin: scripts as JSON, each with the variables of its own.
stdout: what became of each, and what the proxy refused it, as JSON.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from bot.app_sandboxes import provider_of
from bot.errors import ProviderUnavailable
from bot.models import Launch
from bot.ports import Sandbox
from bot.settings import load
from bot.trust import Trust
from tests.npm_registry import NpmRegistry
from tests.python_index import PythonIndex

NPM, INDEX, FILES = "registry.npmjs.org", "pypi.org", "files.pythonhosted.org"
MIRROR = "mirror.example"  # no mode but `open` knows it
OF_NPM, OF_PYTHON = "93.184.216.34", "93.184.216.35"  # public ones, as the proxy sees it
NAMES = {NPM: OF_NPM, INDEX: OF_PYTHON, FILES: OF_PYTHON, MIRROR: OF_PYTHON}

WORD = "hello from a package"


@asynccontextmanager
async def at(address: str, port: int, served: str) -> AsyncIterator[None]:
    """What listens on this port of loopback, at a public address by https."""

    async def copy(source: asyncio.StreamReader, goal: asyncio.StreamWriter) -> None:
        while some := await source.read(65536):
            goal.write(some)
            await goal.drain()
        goal.close()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(copy(reader, back), copy(there, writer), return_exceptions=True)

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(served)
    server = await asyncio.start_server(relay, address, 443, ssl=context)
    yield
    server.close()


@asynccontextmanager
async def registries(served: str) -> AsyncIterator[None]:
    npm, index = NpmRegistry(f"https://{NPM}"), PythonIndex(f"https://{FILES}")
    async with npm, index, at(OF_NPM, npm.port, served), at(OF_PYTHON, index.port, served):
        npm.publish("greeting", "1.0.0", "greet", f"#!/bin/sh\necho {WORD}\n")
        index.publish("greeting", "1.0", f"WORD = {WORD!r}")
        yield


async def tried(box: Sandbox, trust: Trust, script: str, env: Mapping[str, str]) -> dict[str, Any]:
    launch = Launch(("sh", "-ec", script), box.home, env=env)
    done = await box.run(trust.into(box, launch), timeout=100)
    return {"code": done.code, "out": done.out.decode(), "err": done.err.decode()}


async def main(served: str) -> None:
    settings = load(None)
    provider = provider_of(settings)
    try:
        await provider.check()
    except ProviderUnavailable as error:
        print(json.dumps({"cannot": str(error)}))
        return
    box = await provider.create({})
    trust = Trust(settings.certificates())
    try:
        await trust.bring(box)
        async with registries(served):
            told = [await tried(box, trust, script, env) for script, env in json.load(sys.stdin)]
        refused = [denied.host for denied in await box.denied_hosts(0)]
    finally:
        await box.delete()
    print(json.dumps({"told": told, "refused": refused}))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
