"""`sandpiper serve` that cannot start says why and what to do, with exit code 2; and it stops calmly."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from bot.errors import SandpiperError
from handlers.operator import ask_the_bot
from handlers.playground.demo import BOT, end_left_over
from handlers.playground.playground import Playground, free_port
from handlers.playground.slack_limits import NO_RATES
from handlers.slack.install import PATH as SLACK_PATH
from tests.e2e.rig import REPOSITORY, WAIT, Rig, at_gate

pytestmark = pytest.mark.asyncio(loop_scope="module")

SECRET = "a-secret-that-is-never-shown"
GITHUB = {
    "SANDPIPER_GITHUB_APP_ID": "1",
    "SANDPIPER_GITHUB_PRIVATE_KEY": "-----BEGIN RSA PRIVATE KEY-----\n-----END RSA PRIVATE KEY-----",
    "SANDPIPER_GITHUB_WEBHOOK_SECRET": SECRET,
}


@dataclass(frozen=True)
class Ended:
    code: int | None
    said: str


async def serve(
    directory: Path, settings: Mapping[str, str], *, path: str | None = None, arguments: tuple[str, ...] = ()
) -> Ended:
    """Run it to its end, with no settings but these."""
    home = {"HOME": str(directory), "PATH": path or os.environ["PATH"]}
    process = await asyncio.create_subprocess_exec(
        *BOT,
        *arguments,
        cwd=directory,
        env={**home, "SANDPIPER_DATA_DIR": str(directory / "data"), **settings},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(30):
            out, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return Ended(process.returncode, out.decode())


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({}, ("SANDPIPER_GITHUB_APP_ID", "SANDPIPER_SLACK_BOT_TOKEN", ".env.example", "make demo")),
        (
            {"SANDPIPER_SLACK_BOT_TOKEN": SECRET},
            ("SANDPIPER_SLACK_APP_TOKEN", "SANDPIPER_SLACK_SIGNING_SECRET", "SANDPIPER_GITHUB_APP_ID"),
        ),
        ({**GITHUB, "SANDPIPER_SLACK_APP_TOKEN": SECRET}, ("SANDPIPER_SLACK_BOT_TOKEN",)),
        (
            {"SANDPIPER_GITHUB_APP_ID": "1"},
            ("SANDPIPER_GITHUB_PRIVATE_KEY", "SANDPIPER_GITHUB_WEBHOOK_SECRET"),
        ),
        ({"SANDPIPER_GITHUB_WEBHOOK_SECRET": SECRET}, ("SANDPIPER_GITHUB_APP_ID",)),
        ({**GITHUB, "SANDPIPER_GITHUB_APP_ID": "my app"}, ("SANDPIPER_GITHUB_APP_ID", "integer")),
        ({**GITHUB, "SANDPIPER_WEB_PORT": "99999"}, ("SANDPIPER_WEB_PORT",)),
        (
            {**GITHUB, "SANDPIPER_GITHUB_PRIVATE_KEY": "no-such-file.pem"},
            ("SANDPIPER_GITHUB_PRIVATE_KEY", "cannot be read"),
        ),
        (GITHUB, ("SANDPIPER_GITHUB_PRIVATE_KEY", "private key cannot be used")),
        ({**GITHUB, "SANDPIPER_DATA_DIR": "/dev/null/data"}, ("/dev/null/data cannot be used",)),
    ],
    ids=[
        "nothing",
        "slack without a way to hear, and without the code",
        "slack without its bot",
        "github without its secrets",
        "github without its app",
        "not a number",
        "not a port",
        "no such key file",
        "not a key",
        "no directory",
    ],
)
async def test_a_setting_that_is_missing_or_wrong_is_named(
    tmp_path: Path, settings: Mapping[str, str], told: tuple[str, ...]
) -> None:
    ended = await serve(tmp_path, settings)
    assert ended.code == 2
    for part in told:
        assert part in ended.said
    assert "Traceback" not in ended.said and SECRET not in ended.said


async def test_without_bubblewrap_it_refuses_with_the_mend(tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("git", "sh"):
        (programs / name).symlink_to(shutil.which(name) or name)
    ended = await serve(tmp_path, GITHUB, path=str(programs))
    assert ended.code == 2
    assert "bubblewrap is not installed" in ended.said
    assert "apt install bubblewrap" in ended.said and "SANDPIPER_SANDBOX_UNSAFE=true" in ended.said


async def test_a_data_directory_in_use_is_refused_and_names_who_has_it(shared: Rig, tmp_path: Path) -> None:
    data = str(shared.directory / "bot")
    ended = await serve(tmp_path, {**shared.playground.environment(), "SANDPIPER_DATA_DIR": data})
    assert ended.code == 2
    assert f"in use by process {shared.bot.pid}" in ended.said
    root = shared.mention("!answer Still here.")
    assert "Still here." in (await shared.final(root)).shown


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({}, ("SANDPIPER_WEB_PORT", "a free port")),  # the other bot has it
        ({"SANDPIPER_DEFAULT_AGENT": "gpt"}, ("SANDPIPER_DEFAULT_AGENT", "'gpt'", "claude")),
        ({"SANDPIPER_SLACK_BOT_TOKEN": "xoxb-wrong"}, ("invalid_auth", "SANDPIPER_SLACK_BOT_TOKEN")),
        ({"SANDPIPER_SLACK_APP_TOKEN": "xapp-wrong"}, ("invalid_auth", "SANDPIPER_SLACK_APP_TOKEN")),
        ({"SANDPIPER_GITHUB_APP_ID": "1"}, ("SANDPIPER_GITHUB_APP_ID",)),
        (
            {"SANDPIPER_DEFAULT_AGENT": "claude", "SANDPIPER_GITHUB_APP_ID": "1"},
            ("Claude Code has no credential", "SANDPIPER_ANTHROPIC_API_KEY"),
        ),
    ],
    ids=[
        "a taken port",
        "no such agent",
        "not slack's bot token",
        "not slack's app token",
        "not the app",
        "no key for Claude",
    ],
)
async def test_what_turns_out_wrong_at_the_start_is_named(
    shared: Rig, tmp_path: Path, wrong: Mapping[str, str], told: tuple[str, ...]
) -> None:
    port = {"SANDPIPER_WEB_PORT": str(free_port())} if wrong else {}
    ended = await serve(tmp_path, {**shared.playground.environment(), **port, **wrong})
    assert ended.code == 2
    for part in told:
        assert part in ended.said
    assert "Traceback" not in ended.said


async def test_settings_can_come_from_a_file(shared: Rig, tmp_path: Path) -> None:
    quoted = (f"{name}='{value}'\n" for name, value in shared.playground.environment().items())
    (tmp_path / ".env").write_text("".join(quoted))
    ended = await serve(tmp_path, {})
    assert "SANDPIPER_WEB_PORT" in ended.said  # so far it gets: the file's port is the other bot's


@pytest.mark.parametrize("named", ["typo.env", "directory"])
async def test_a_file_of_settings_that_is_named_and_cannot_be_read_is_an_error(
    tmp_path: Path, named: str
) -> None:
    (tmp_path / "directory").mkdir()
    ended = await serve(tmp_path, GITHUB, arguments=("--env-file", named))
    assert ended.code == 2 and f"--env-file {named} is not there" in ended.said
    assert "Traceback" not in ended.said


@asynccontextmanager
async def starting(directory: Path, playground: Playground, **settings: str) -> AsyncIterator[Rig]:
    """A bot that may have to wait for a surface. At the end it has to be well, or to become so."""
    made = Rig(playground, directory, settings)
    start = asyncio.create_task(made.start())
    try:
        yield made
        await start
    finally:
        start.cancel()
        await asyncio.wait([start])
        await made.bot.stop()
        await end_left_over(directory)


async def waits_for(made: Rig, *surfaces: str) -> None:
    """Wait until the bot says that these are away, and that it is well otherwise."""
    async with asyncio.timeout(WAIT), httpx.AsyncClient(trust_env=False) as probe:
        while True:
            with contextlib.suppress(httpx.TransportError):
                health = (await probe.get(made.playground.health_url)).json()
                if health["ok"] and health["waiting_for"] == list(surfaces):
                    return
            await asyncio.sleep(0.05)


async def label_an_issue(made: Rig) -> int:
    """Ana labels one; GitHub hands that over once, and has to be told that it was taken."""
    number = made.github.open_issue(REPOSITORY, "ana", "Make it work", "!answer Here I am.")
    made.github.label(REPOSITORY, number, "sandpiper", "ana")

    def answers() -> list[int]:
        labelled = [sent for sent in made.github.deliveries if b'"labeled"' in sent.body]
        return [sent.status_code for sent in labelled if sent.status != "pending"]

    await made.github_until(lambda: bool(answers()))
    assert answers() == [202]
    return number


async def is_answered(made: Rig, number: int) -> None:
    await made.github_until(
        lambda: any("Here I am." in one.body for one in made.github.comments(REPOSITORY, number))
    )


@pytest_asyncio.fixture(loop_scope="module")
async def playground(tmp_path: Path) -> AsyncIterator[Playground]:
    async with Playground(tmp_path / "github", rates=NO_RATES) as playground:
        yield playground


@pytest.mark.parametrize("trouble", ["internal_error", "ratelimited"])
async def test_slack_that_is_unwell_at_the_start_is_waited_for(
    playground: Playground, tmp_path: Path, trouble: str
) -> None:
    """Meanwhile GitHub's events are stored: it sends each of them once."""
    for method in ("auth.test", "apps.connections.open"):
        playground.slack.fail_next(method, trouble)
    async with starting(tmp_path, playground) as made:
        await waits_for(made, "slack")
        with pytest.raises(SandpiperError, match=r"is being started, and waits for slack\."):
            await ask_the_bot(tmp_path / "bot", "list", "", False)
        number = await label_an_issue(made)
        await waits_for(made)
        await is_answered(made, number)
        root = made.mention("!answer And here.")
        assert "And here." in (await made.final(root)).shown


async def test_github_that_is_away_at_the_start_is_waited_for_and_its_events_are_stored(
    playground: Playground, tmp_path: Path
) -> None:
    async with starting(tmp_path, playground) as made:
        with made.github.holding("GET", "^/app$"):
            await waits_for(made, "github", "slack")
            number = await label_an_issue(made)
        await waits_for(made)
        await is_answered(made, number)


async def test_slack_by_http_is_asked_to_come_again_until_the_bot_knows_who_it_is(
    playground: Playground, tmp_path: Path
) -> None:
    playground.slack.fail_next("auth.test", "internal_error")
    by_http = {"SLACK_APP_TOKEN": "", "SLACK_SIGNING_SECRET": playground.slack.signing_secret}
    settings = {f"SANDPIPER_{name}": value for name, value in by_http.items()}
    async with starting(tmp_path, playground, **settings) as made:
        await waits_for(made, "slack")
        door = made.playground.health_url.replace("/healthz", SLACK_PATH)
        async with httpx.AsyncClient(trust_env=False) as probe:
            early = await probe.post(door)
        assert early.status_code == 503 and "Retry-After" in early.headers
        await waits_for(made)
        made.slack.request_url = door
        root = made.mention("!answer Here by HTTP.")
        assert "Here by HTTP." in (await made.final(root)).shown


async def test_sigterm_ends_it_calmly_and_agents_go_on(shared: Rig) -> None:
    root = shared.mention(f"{at_gate('calm')}\n!answer Calm.")
    await shared.reached("calm")
    await shared.bot.stop()
    assert shared.bot.view()["state"] == "stopped"
    shared.open_gate("calm")
    await shared.start_again()
    assert "Calm." in (await shared.final(root)).shown
    assert len(shared.finals(root)) == 1
    assert "Traceback" not in shared.log
