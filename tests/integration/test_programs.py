"""Agents' programs in a real box: installed by the real npm from a registry on loopback, at their pin."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bot.agents.inside import program
from bot.errors import AgentMissing, ProviderUnavailable
from bot.models import Launch
from bot.ports import Sandbox
from bot.programs import FOR_INSTALLING, Program, Programs
from sandbox.bubblewrap import Options
from sandbox.isolation import Bubblewrap
from sandbox.local import LocalProvider
from tests.boxes import cannot_be_tested, must_work
from tests.npm_registry import NpmRegistry

pytestmark = pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not installed")

SAYS = "#!/bin/sh\necho {} v{}\n"


@pytest.fixture
async def registry() -> AsyncIterator[NpmRegistry]:
    async with NpmRegistry() as made:
        for version in ("1.0.0", "1.1.0"):
            made.publish("@acme/agent", version, "acme-agent", SAYS.format("acme", version))
        made.publish("helper", "2.0.0", "acme-helper", SAYS.format("helper", "2.0.0"))
        yield made


@pytest.fixture
async def provider(registry: NpmRegistry, tmp_path: Path) -> AsyncIterator[LocalProvider]:
    port = int(registry.url.rpartition(":")[2])
    npm = Path(shutil.which("npm") or "").resolve()
    tools = () if npm.is_relative_to("/usr") else (npm.parents[3],)
    made = LocalProvider(tmp_path / "boxes", Bubblewrap(Options(tools=tools, loopback=(port,)), allow=()))
    await must_work(made, "bubblewrap")
    yield made
    await made.close()


@pytest.fixture
async def sandbox(provider: LocalProvider) -> AsyncIterator[Sandbox]:
    box = await provider.create({})
    yield box
    await box.delete()


class Told(list[str]):
    async def __call__(self, named: str) -> None:
        self.append(named)


async def run(sandbox: Sandbox, command: tuple[str, ...]) -> str:
    done = await sandbox.run(Launch(command, sandbox.home))
    assert done.code == 0, done.err
    return done.out.decode().strip()


def pinned(registry: NpmRegistry, version: str) -> Program:
    packages = (f"@acme/agent@{version}", "helper@2.0.0")
    return Program(("acme-agent", "--serve"), version, packages, registry.url)


async def test_it_is_installed_once_at_its_pin(registry: NpmRegistry, sandbox: Sandbox) -> None:
    told = Told()
    programs = Programs({"acme": pinned(registry, "1.0.0")})
    command = await programs.ready(sandbox, "acme", told)
    assert command[-1] == "--serve" and await run(sandbox, command) == "acme v1.0.0"
    asked = len(registry.asked)
    assert await programs.ready(sandbox, "acme", told) == command
    assert await Programs(programs.known).ready(sandbox, "acme", told) == command  # after a restart
    assert told == ["@acme/agent@1.0.0"] and len(registry.asked) == asked


async def test_another_pin_is_put_beside_the_one_that_runs(registry: NpmRegistry, sandbox: Sandbox) -> None:
    told = Told()
    old = await Programs({"acme": pinned(registry, "1.0.0")}).ready(sandbox, "acme", told)
    new = await Programs({"acme": pinned(registry, "1.1.0")}).ready(sandbox, "acme", told)
    assert await run(sandbox, new) == "acme v1.1.0" and await run(sandbox, old) == "acme v1.0.0"


async def test_an_older_one_earlier_on_the_path_is_not_called(
    registry: NpmRegistry, sandbox: Sandbox
) -> None:
    older = f"mkdir -p ~/.local/bin; printf '{SAYS.format('acme', '0.9.0')}' >~/.local/bin/acme-agent;"
    await run(sandbox, ("sh", "-c", f"{older} chmod +x ~/.local/bin/acme-agent"))
    assert await run(sandbox, ("acme-agent",)) == "acme v0.9.0"
    command = await Programs({"acme": pinned(registry, "1.0.0")}).ready(sandbox, "acme", Told())
    assert await run(sandbox, command) == "acme v1.0.0"
    by_hand = Program(("acme-agent",), "1.0.0")
    with pytest.raises(AgentMissing, match=r"to be version 1\.0\.0, but .*acme-agent says: acme v0\.9\.0"):
        await Programs({"by-hand": by_hand}).ready(sandbox, "by-hand", Told())


async def as_npm(sandbox: Sandbox, script: str) -> str:
    """What only an installation may do."""
    done = await sandbox.run(Launch(("sh", "-c", script), sandbox.home, installs=True))
    assert done.code == 0, done.err
    return done.out.decode().strip()


async def test_what_was_broken_is_mended_before_the_next_start(
    registry: NpmRegistry, sandbox: Sandbox
) -> None:
    told = Told()
    programs = Programs({"acme": pinned(registry, "1.0.0")})
    command = await programs.ready(sandbox, "acme", told)
    installed = f"{sandbox.agents}/acme/1.0.0/node_modules/.bin/acme-agent"
    await as_npm(sandbox, f"printf '{SAYS.format('acme', '6.6.6')}' >$(readlink -f {installed})")
    running = await run(sandbox, ("sh", "-c", f"readlink -f {installed}"))
    assert await programs.ready(sandbox, "acme", told) == command
    assert await run(sandbox, command) == "acme v1.0.0" and len(told) == 2
    # Who runs meanwhile, in another session of the same box, keeps its files.
    assert await run(sandbox, ("sh", running)) == "acme v6.6.6"


@pytest.mark.parametrize("near", ["1.0.01", "11.0.0", "1.0.0-beta", "2.1.0.0", "1.0.0.1"])
async def test_a_version_that_only_looks_like_the_pin_is_another(
    registry: NpmRegistry, sandbox: Sandbox, near: str
) -> None:
    await run(sandbox, ("sh", "-c", "mkdir -p ~/.local/bin"))
    says = f"printf '#!/bin/sh\necho acme v{near}\n' >~/.local/bin/acme-agent"
    await run(sandbox, ("sh", "-c", f"{says}; chmod +x ~/.local/bin/acme-agent"))
    unpackaged = Program(("acme-agent",), "1.0.0", (), registry.url)
    with pytest.raises(AgentMissing, match="to be version"):
        await Programs({"acme": unpackaged}).ready(sandbox, "acme", Told())


async def test_what_comes_with_an_agent_is_found_by_it_alone(registry: NpmRegistry, sandbox: Sandbox) -> None:
    registry.publish(
        "@acme/agent",
        "1.2.0",
        "acme-agent",
        '#!/bin/sh\ntest "$1" = --version && echo 1.2.0 || acme-helper\n',
    )
    command = await Programs({"acme": pinned(registry, "1.2.0")}).ready(sandbox, "acme", Told())
    assert await run(sandbox, command) == "helper v2.0.0"
    assert (await sandbox.run(Launch(("sh", "-c", "command -v acme-helper"), sandbox.home))).code != 0


async def test_what_cannot_be_installed_says_why(registry: NpmRegistry, sandbox: Sandbox) -> None:
    nowhere = Program(("ghost",), "1.0.0", ("ghost@1.0.0",), registry.url)
    with pytest.raises(AgentMissing, match=r"ghost@1\.0\.0 could not be installed.*(404|E404)"):
        await Programs({"ghost": nowhere}).ready(sandbox, "ghost", Told())
    assert await as_npm(sandbox, f"ls {sandbox.agents}/ghost || :") == ""
    with pytest.raises(AgentMissing, match="no 'ghost' is there"):
        await Programs({"ghost": Program(("ghost",))}).ready(sandbox, "ghost", Told())


SPOILT = r"""
for name in sh env node npm npx readlink stat tail acme-agent; do
    mkdir -p ~/.local/bin ~/bin
    printf '#!/bin/sh\necho planted acme v1.0.0\n' >~/.local/bin/$name
    chmod +x ~/.local/bin/$name
    cp ~/.local/bin/$name ~/bin/$name
done
printf 'registry=http://127.0.0.1:9/\nscript-shell=%s\n' "$HOME/bin/sh" >~/.npmrc
cp ~/.npmrc ~/package.json
mkdir -p ~/node_modules/.bin
cp ~/bin/sh ~/node_modules/.bin/acme-agent
"""
NODE = """#!/usr/bin/env -S node --no-warnings
if (process.argv[2] === "--version") console.log("acme v1.3.0");
else console.log("run by " + process.execPath + " " + process.execArgv);
"""


async def test_an_earlier_turn_has_no_say_in_how_an_agent_is_installed_and_started(
    registry: NpmRegistry, sandbox: Sandbox
) -> None:
    registry.publish("@acme/agent", "1.3.0", "acme-agent", NODE)
    programs = {"acme": pinned(registry, "1.3.0")}
    await run(sandbox, ("/bin/sh", "-c", SPOILT))
    command = await Programs(programs).ready(sandbox, "acme", Told())
    said = (await run(sandbox, command)).split()
    assert said[:2] == ["run", "by"] and not said[2].startswith(sandbox.home) and said[3] == "--no-warnings"


@pytest.mark.parametrize(
    "attack",
    [
        "echo >>$1",
        "rm -f $1",
        "rm -rf $2/acme",
        "mv $2/acme $2/other",
        "mkdir $2/codex",
        "chmod -R u+w $2 && echo >>$1",
    ],
)
async def test_no_turn_changes_an_agents_program(
    registry: NpmRegistry, sandbox: Sandbox, attack: str
) -> None:
    command = await Programs({"acme": pinned(registry, "1.0.0")}).ready(sandbox, "acme", Told())
    path = f"{sandbox.agents}/acme/1.0.0/node_modules/.bin/acme-agent"
    done = await sandbox.run(Launch(("sh", "-c", attack, "attack", path, sandbox.agents), sandbox.home))
    assert done.code != 0 and (b"ead-only" in done.err or b"Permission denied" in done.err)
    assert await run(sandbox, command) == "acme v1.0.0"


async def test_the_systems_own_program_comes_first_where_it_has_the_right_version(
    registry: NpmRegistry, tmp_path: Path
) -> None:
    """As in an image that has the agents: what a turn can write to stands behind it."""
    tool = tmp_path / "tool"
    tool.mkdir()
    (tool / "acme-agent").write_text(SAYS.format("outer acme", "1.0.0"))
    (tool / "acme-agent").chmod(0o755)
    port = int(registry.url.rpartition(":")[2])
    npm = Path(shutil.which("npm") or "").resolve()
    tools = (tool, *(() if npm.is_relative_to("/usr") else (npm.parents[3],)))
    provider = LocalProvider(tmp_path / "boxes", Bubblewrap(Options(tools=tools, loopback=(port,)), allow=()))
    try:
        await provider.check()
    except ProviderUnavailable as error:
        cannot_be_tested(str(error))
    box = await provider.create({})
    told = Told()
    programs = Programs({"acme": pinned(registry, "1.0.0"), "newer": pinned(registry, "1.1.0")})
    installed = f"{box.agents}/acme/1.0.0/node_modules/.bin"
    await as_npm(
        box,
        f"mkdir -p {installed}; echo 'echo planted 1.0.0' >{installed}/acme-agent; chmod +x {installed}/*",
    )
    for _ in range(2):
        command = await programs.ready(box, "acme", told)
        assert await run(box, command) == "outer acme v1.0.0"
    assert not told
    newer = await programs.ready(box, "newer", told)
    assert await run(box, newer) == "acme v1.1.0" and told == ["@acme/agent@1.1.0"]
    await box.delete()
    await provider.close()


async def test_it_is_installed_ahead_of_the_first_turn_for_all_sandboxes(
    registry: NpmRegistry, sandbox: Sandbox, provider: LocalProvider, caplog: pytest.LogCaptureFixture
) -> None:
    half = await provider.create(FOR_INSTALLING)
    await Programs({"acme": pinned(registry, "1.0.0")}).ahead(provider, "acme")
    assert await provider.find(FOR_INSTALLING) == [] and half.id != sandbox.id
    asked, told = len(registry.asked), Told()
    command = await Programs({"acme": pinned(registry, "1.0.0")}).ready(sandbox, "acme", told)
    assert await run(sandbox, command) == "acme v1.0.0"
    assert not told and len(registry.asked) == asked

    nowhere = Program(("ghost",), "1.0.0", ("ghost@1.0.0",), registry.url)
    await Programs({"ghost": nowhere}).ahead(provider, "ghost")
    assert "ghost@1.0.0 could not be installed" in caplog.text
    assert await provider.find(FOR_INSTALLING) == []


async def test_an_installation_sees_nothing_of_a_persons(registry: NpmRegistry, sandbox: Sandbox) -> None:
    await run(sandbox, ("sh", "-c", "echo key >~/.secret"))
    assert await as_npm(sandbox, "ls -A ~ /workspace /repositories | grep -v :") == ""


PLANTED = r"""
mkdir -p ~/.local/bin
printf '#!/bin/sh\necho planted program; exit 0\n' >~/.local/bin/python3
chmod +x ~/.local/bin/python3
for python in /usr/bin/python3 /usr/local/bin/python3; do
    test -x "$python" || continue
    site=$("$python" -c 'import site; print(site.getusersitepackages())')
    mkdir -p "$site"
    echo 'print("planted module", flush=True)' >"$site/usercustomize.py"
done
"""


async def test_what_lies_in_the_home_does_not_stand_between_the_bot_and_an_agent(sandbox: Sandbox) -> None:
    """An earlier turn can have left it there, and would read and write in the agent's name."""
    await run(sandbox, ("sh", "-c", PLANTED))
    assert await run(sandbox, ("sh", "-c", "python3")) == "planted program"
    beside = (*program("side_tools"), "/tmp/tools", "/tmp/shared", "set_title", "sh", "-c")
    # The agent itself has the PATH that it always had.
    assert (
        await run(sandbox, (*beside, "command -v python3; echo agent"))
        == "/home/agent/.local/bin/python3\nagent"
    )
    call = 'python=$(PATH=/usr/bin:/bin; command -v python3); "$python" "$SANDPIPER_PROGRAMS/mcp_call.py" {}'
    served = call.format("nothing '{}' /bin/sh /tmp/tools/serve")
    told = await sandbox.run(Launch((*beside, served), sandbox.home))
    assert told.out.decode().replace("planted module\n", "") == "There is no tool 'nothing'.\n"
