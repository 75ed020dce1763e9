"""A private certificate authority: trusted in real boxes, and by the bot, besides what they trust anyway."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from bot.errors import SettingsError
from bot.models import ExecResult, Launch
from bot.settings import load
from bot.trust import Trust, read_bundle, trust_it_ourselves
from sandbox.local import LocalSandbox
from tests.boxes import cannot_be_tested, must_work
from tests.certificates import Authority, make_authority, serving
from tests.integration.test_hooks import SETUP, has, row
from tests.integration.test_workspace import answers
from tests.local_boxes import make
from tests.town import town
from tests.world import HostSandbox, ScriptedProcess

ROOT = Path(__file__).parents[2]

# Each asks $1, and ends with an error where it does not trust it.
ASKS = {
    "curl": 'curl -fsS "$1/hello"',
    "git": 'git ls-remote "$1/repository.git" main',
    "python": 'python3 -c "import sys, urllib.request as u; print(u.urlopen(sys.argv[1]).read())" "$1/hello"',
    "node": 'node -e "fetch(process.argv[1]).then(async r => console.log(await r.text()))" "$1/hello"',
    "npm": 'npm view --fetch-retries=0 --registry "$1/npm" thing version',
}
NEEDS = {"python": "python3"}


@dataclass(frozen=True)
class Site:
    url: str
    port: int
    authority: Authority


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A server whose authority nobody knows, with a page, a repository and a registry."""
    directory = tmp_path_factory.mktemp("site")
    files = directory / "files"
    for path, content in {
        "hello": "hello there",
        "npm/thing": '{"name": "thing", "dist-tags": {"latest": "1.0.0"}, "versions":'
        ' {"1.0.0": {"name": "thing", "version": "1.0.0"}}}',
    }.items():
        (files / path).parent.mkdir(parents=True, exist_ok=True)
        (files / path).write_text(content)
    making = """
    git init -q -b main seed; cd seed; git -c user.name=A -c user.email=a@b commit -q --allow-empty -m One
    git clone -q --bare . ../files/repository.git; cd ../files/repository.git; git update-server-info
    """
    env = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull}
    subprocess.run(["sh", "-ec", making], cwd=directory, env=env, check=True)
    authority = make_authority(directory)
    with serving(authority, files) as port:
        yield Site(f"https://localhost:{port}", port, authority)


@pytest.fixture
async def box(tmp_path: Path) -> AsyncIterator[LocalSandbox]:
    provider = make(tmp_path / "sandboxes")
    await must_work(provider, "bubblewrap")
    sandbox = await provider.create({})
    yield sandbox
    await sandbox.delete()


async def ask(box: LocalSandbox, site: Site, with_what: str, trust: Trust) -> ExecResult:
    launch = Launch(("sh", "-c", ASKS[with_what], "ask", site.url), box.home, loopback=(site.port,))
    return await box.run(trust.into(box, launch), timeout=120)


@pytest.mark.parametrize("with_what", ["curl", "git", "python", "node", "npm"])
async def test_programs_in_a_box_trust_it(box: LocalSandbox, site: Site, with_what: str) -> None:
    if shutil.which(NEEDS.get(with_what, with_what), path="/usr/local/bin:/usr/bin:/bin") is None:
        cannot_be_tested(f"{with_what} is not where boxes see it")
    refused = await ask(box, site, with_what, Trust())
    assert refused.code != 0 and b"certificate" in refused.err.lower(), refused
    trust = Trust(read_bundle(site.authority.bundle, "X"))
    await trust.bring(box)
    await trust.bring(box)  # as each turn does
    trusted = await ask(box, site, with_what, trust)
    assert trusted.code == 0, trusted.err.decode()
    assert trusted.out


async def test_what_a_box_trusted_before_it_still_trusts(box: LocalSandbox, site: Site) -> None:
    trust = Trust(read_bundle(site.authority.bundle, "X"))
    await trust.bring(box)
    counting = 'for each in "$SSL_CERT_FILE" "$NODE_EXTRA_CA_CERTS"; do grep -c BEGIN "$each"; done'
    counted = await box.run(trust.into(box, Launch(("sh", "-c", counting), box.home)))
    everything, own = map(int, counted.out.split())
    system = await box.run(Launch(("grep", "-c", "BEGIN", "/etc/ssl/certs/ca-certificates.crt"), box.home))
    assert own == 1 and everything == int(system.out or 0) + 1 and everything > 10


async def test_no_turn_can_change_what_is_trusted(box: LocalSandbox, site: Site) -> None:
    trust = Trust(read_bundle(site.authority.bundle, "X"))
    await trust.bring(box)
    spoil = 'echo >"$SSL_CERT_FILE" || rm -rf "$(dirname "$SSL_CERT_FILE")"'
    done = await box.run(trust.into(box, Launch(("sh", "-c", spoil), box.home)))
    assert done.code != 0 and b"Read-only" in done.err


async def test_what_an_agents_settings_say_is_not_overwritten(box: LocalSandbox) -> None:
    launch = Launch(("true",), box.home, {"SSL_CERT_FILE": "/mine"})
    assert Trust(b"x").into(box, launch).env["SSL_CERT_FILE"] == "/mine"


async def test_a_turn_brings_it_and_says_so_to_hooks_and_agents(tmp_path: Path, site: Site) -> None:
    told: list[str] = []

    class Told(HostSandbox):
        async def spawn(
            self, key: str, launch: Launch, *, fence: int, orphan_after: float
        ) -> ScriptedProcess:
            told.append(launch.env["SSL_CERT_FILE"])
            return await super().spawn(key, launch, fence=fence, orphan_after=orphan_after)

    bundle = read_bundle(site.authority.bundle, "X")
    async with town(tmp_path, [answers], certificates=bundle) as t:
        t.provider.make = Told
        await has(t, SETUP, 'grep -c BEGIN "$NODE_EXTRA_CA_CERTS"; echo "$SSL_CERT_FILE"')
        await t.say("one")
        await t.final()
        shown = row(t, "hook:setup").result
    assert shown == f"1\n{told[0]}" and bundle in Path(told[0]).read_bytes()


# The bot itself


OURSELVES = """
import asyncio, os, ssl, sys
from pathlib import Path
import aiohttp, httpx, requests
from bot.app import _trust
from bot.settings import load
from handlers.github.git import git

url = sys.argv[1]

async def ask(session):
    async with session.get(url + "/hello") as answer:
        return await answer.text()

async def main():
    _trust(load(None))
    assert httpx.get(url + "/hello").text == requests.get(url + "/hello", timeout=9).text == "hello there"
    connector = aiohttp.TCPConnector(ssl=ssl.create_default_context())
    async with aiohttp.ClientSession(connector=connector) as session:
        assert await ask(session) == "hello there"
    print((await git("ls-remote", url + "/repository.git", cwd=Path("."))).out)

asyncio.run(main())
"""


def asks_as_the_bot(script: str, tmp_path: Path, site: Site) -> subprocess.CompletedProcess[str]:
    env = {
        **{name: value for name, value in os.environ.items() if not name.startswith("SANDPIPER_")},
        "SANDPIPER_DATA_DIR": str(tmp_path / "data"),
        "SANDPIPER_CA_BUNDLE": str(site.authority.bundle),
        "PYTHONPATH": str(ROOT),
        "NO_PROXY": "localhost",
    }
    argv = [sys.executable, "-c", script, site.url]
    return subprocess.run(argv, env=env, cwd=tmp_path, capture_output=True, text=True, check=False)


def test_the_bot_trusts_it(tmp_path: Path, site: Site) -> None:
    done = asks_as_the_bot(OURSELVES, tmp_path, site)
    assert done.returncode == 0, done.stderr
    assert "refs/heads/main" in done.stdout


FAR_AWAY = """
import asyncio, sys
from bot.app import _trust
from bot.errors import SandboxError
from bot.settings import load
from sandbox import daytona, daytona_account, e2b
from sandbox.door_client import door_client

url = sys.argv[1]
told = load(None)

async def asked(provider):
    try:
        await provider.check()
    except SandboxError as error:
        print(error)
    await provider.close()

async def main():
    _trust(told)
    async with door_client() as client:
        print((await client.get(url + "/hello")).text)
    await asked(daytona.DaytonaProvider(daytona_account.Account("key", url + "/api")))
    await asked(e2b.E2BProvider(e2b.Account("e2b_" + 40 * "0", api_url=url)))

asyncio.run(main())
"""


def test_the_bot_trusts_it_at_the_providers_of_remote_boxes_too(tmp_path: Path, site: Site) -> None:
    """Their SDKs, whose APIs are not there, and the doors of their boxes."""
    done = asks_as_the_bot(FAR_AWAY, tmp_path, site)
    assert done.returncode == 0, done.stderr
    door, *apis = done.stdout.splitlines()
    assert door == "hello there"
    assert len(apis) == 2 and not any("certificate" in said for said in apis), apis


def test_the_bot_keeps_trusting_what_it_was_told_to_before(tmp_path: Path, site: Site) -> None:
    theirs = tmp_path / "theirs.pem"
    theirs.write_text("their certificates")
    told = trust_it_ourselves(b"ours", tmp_path, {"SSL_CERT_FILE": str(theirs)})
    assert set(told) == {"SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "GIT_SSL_CAINFO"}
    assert Path(told["SSL_CERT_FILE"]).read_text() == "their certificates\nours"


# The setting


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "cannot be read (No such file or directory)"),
        ("", "holds no certificates in PEM"),
        ("-----BEGIN CERTIFICATE-----\nnonsense\n-----END CERTIFICATE-----\n", "holds no certificates"),
        ("not ascii: \u00e9", "holds no certificates"),
        ("-----BEGIN PRIVATE KEY-----\n", "holds a private key"),
    ],
)
def test_a_bundle_that_is_none_is_an_error_that_names_its_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str | None, says: str
) -> None:
    path = tmp_path / "bundle.pem"
    if content is not None:
        path.write_text(content)
    monkeypatch.setenv("SANDPIPER_CA_BUNDLE", str(path))
    with pytest.raises(SettingsError, match="SANDPIPER_CA_BUNDLE") as refused:
        load(None)
    assert says in str(refused.value) and str(path) in str(refused.value)
