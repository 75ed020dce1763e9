"""The demo's process: it starts the bot, keeps it alive, says what goes wrong, and leaves nothing behind."""

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from handlers.playground.bot_process import BotFailed, BotProcess
from handlers.playground.demo import DemoFailed, claude_settings, end_left_over, run_demo, surroundings
from handlers.playground.playground import free_port

# A bot that is well and does nothing; it writes its environment down, and leaves a keeper behind.
STAND_IN = """
import http.server, json, os, pathlib, signal, subprocess, sys

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/healthz" else 404)
        self.end_headers()
    def log_message(self, *words):
        pass

signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
data = pathlib.Path(os.environ["SANDPIPER_DATA_DIR"])
data.mkdir(exist_ok=True)
data.joinpath("environment.json").write_text(json.dumps(dict(os.environ)))
if "keeper" in sys.argv:
    sleeper = [sys.executable, "-c", "import time; time.sleep(600)"]
    keeper = "import subprocess, sys; subprocess.run(" + repr(sleeper) + ")"
    keeping = [sys.executable, "-c", keeper, "--dir", str(data / "spool")]
    kept = subprocess.Popen(keeping, start_new_session=True)
    data.joinpath("keeper").write_text(str(kept.pid))
if "refuse" in sys.argv or data.joinpath("refuse").exists():
    sys.exit("SANDPIPER_GITHUB_APP_ID: this is no number")
print("I am well", flush=True)
http.server.HTTPServer(("127.0.0.1", int(os.environ["SANDPIPER_WEB_PORT"])), Handler).serve_forever()
"""


def stand_in(*words: str) -> tuple[str, ...]:
    return (sys.executable, "-c", STAND_IN, *words)


def is_alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False


async def until(true: Callable[[], object]) -> None:
    """For what tells nobody when it comes true."""
    async with asyncio.timeout(15):
        while not true():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


# The process


class Heard(list[str]):
    """What people were told."""

    @property
    def text(self) -> str:
        return "\n".join(self)


@contextlib.asynccontextmanager
async def process(tmp_path: Path, heard: Heard, *words: str) -> AsyncIterator[BotProcess]:
    port = free_port()
    made = BotProcess(
        stand_in(*words),
        {"SANDPIPER_WEB_PORT": str(port), "SANDPIPER_DATA_DIR": str(tmp_path / "bot")},
        directory=tmp_path,
        log=tmp_path / "bot.log",
        health_url=f"http://127.0.0.1:{port}/healthz",
        say=heard.append,
        first_delay=0.05,
    )
    try:
        yield made
    finally:
        await made.stop()


async def become(bot: BotProcess, true: Callable[[], bool]) -> None:
    await bot.changes.wait_for(lambda: true() or None, 15, lambda: str(bot.view()))


async def test_a_killed_bot_comes_back_as_another_process(tmp_path: Path) -> None:
    heard = Heard()
    async with process(tmp_path, heard) as bot:
        await bot.start()
        first = bot.pid
        assert bot.view() == {"state": "running", "pid": first, "restarts": 0, "trouble": ""}
        bot.kill()
        await become(bot, lambda: bot.view()["restarts"] == 1 and bot.view()["state"] == "running")
        assert bot.pid != first
        await until(lambda: f"runs again (pid {bot.pid})" in heard.text)
        assert "was killed by SIGKILL" in heard.text
    assert bot.view()["state"] == "stopped" and bot.pid is None
    assert (tmp_path / "bot.log").read_text().count("I am well") == 2


async def test_a_bot_that_cannot_start_is_shown_in_its_own_words(tmp_path: Path) -> None:
    async with process(tmp_path, Heard(), "refuse") as bot:
        with pytest.raises(BotFailed, match=r"(?s)ended with exit code 1.*this is no number"):
            await bot.start()


async def test_a_bot_that_does_not_come_back_is_tried_again_and_explained(tmp_path: Path) -> None:
    heard = Heard()
    async with process(tmp_path, heard) as bot:
        await bot.start()
        refusal = tmp_path / "bot" / "refuse"
        refusal.touch()
        bot.kill()
        await become(bot, lambda: bot.view()["restarts"] == 2 and bot.view()["state"] == "waiting")
        assert "ended with exit code 1" in bot.view()["trouble"]
        assert "does not start" in heard.text and "this is no number" in heard.text
        refusal.unlink()
        await become(bot, lambda: bot.view()["state"] == "running")


async def test_killing_what_does_not_run_is_harmless(tmp_path: Path) -> None:
    async with process(tmp_path, Heard()) as bot:
        bot.kill()
        await bot.start()
        await bot.stop()
        bot.kill()
        await bot.stop()


# The demo


@contextlib.asynccontextmanager
async def running(heard: Heard, **arguments: Any) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(run_demo(port=0, say=heard.append, **arguments))
    try:
        await until(lambda: "Open http" in heard.text or task.done())
        yield task
    finally:
        task.cancel()
        await asyncio.wait([task])


def url_in(heard: Heard) -> str:
    return next(word for word in heard.text.split() if word.startswith("http://"))


async def test_the_demo_serves_its_page_and_ends_with_ctrl_c(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("SANDPIPER_SLACK_BOT_TOKEN", "the real one")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a secret")
    heard = Heard()
    async with running(heard, bot=stand_in("keeper")) as task:
        url = url_in(heard)
        async with httpx.AsyncClient(trust_env=False) as client:
            assert (await client.get(url)).status_code == 200
        [directory] = (tmp_path / "sandpiper").iterdir()
        assert str(directory) in heard.text and "removed at the end" in heard.text
        environment = json.loads((directory / "bot" / "environment.json").read_text())
        assert environment["SANDPIPER_SLACK_BOT_TOKEN"].startswith("xoxb-")
        assert environment["SANDPIPER_DEFAULT_AGENT"] == "scripted"
        assert environment["SANDPIPER_ALLOW_PEOPLE"] == "U_ANA,U_BEN"
        assert "AWS_SECRET_ACCESS_KEY" not in environment
        keeper = int((directory / "bot" / "keeper").read_text())
        assert is_alive(keeper)
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.wait_for(task, 20)
    assert not directory.exists()
    assert not is_alive(keeper)


async def test_data_that_was_asked_for_is_kept(tmp_path: Path) -> None:
    heard = Heard()
    async with running(heard, bot=stand_in(), data_dir=tmp_path / "mine"):
        pass
    [directory] = (tmp_path / "mine").iterdir()
    assert "is kept" in heard.text
    assert "I am well" in (directory / "bot.log").read_text()
    assert (directory / "github" / "acme" / "web.git").is_dir()


async def test_a_demo_whose_bot_cannot_start_fails_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(DemoFailed, match="this is no number"):
        await run_demo(port=0, data_dir=tmp_path, bot=stand_in("refuse"), say=Heard().append)


async def test_a_taken_port_is_an_error_only_if_it_was_asked_for(tmp_path: Path) -> None:
    heard = Heard()
    async with running(heard, bot=stand_in(), data_dir=tmp_path):
        port = int(url_in(heard).rpartition(":")[2])
        with pytest.raises(DemoFailed, match=f"Port {port} is taken"):
            await run_demo(port=port, data_dir=tmp_path, bot=stand_in(), say=heard.append)


async def test_nobody_elses_processes_are_ended(tmp_path: Path) -> None:
    """Somebody looks at the data, in its directory; and another demo has its keepers elsewhere."""
    own, others = str(tmp_path), f"{tmp_path}-2/spool"
    waits = (sys.executable, "-c", "input()")
    pipe = asyncio.subprocess.PIPE
    looking = await asyncio.create_subprocess_exec(*waits, own, cwd=tmp_path, stdin=pipe)
    keeping = await asyncio.create_subprocess_exec(*waits, "--dir", others, stdin=pipe)
    await end_left_over(tmp_path)
    for one in (looking, keeping):
        assert one.returncode is None and is_alive(one.pid)
        await one.communicate(b"go\n")
        assert one.returncode == 0


# Agents and the environment


async def test_an_agent_that_is_not_there_is_explained(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("SANDPIPER_AGENT_CLAUDE", raising=False)
    with pytest.raises(DemoFailed, match="Claude Code is not installed"):
        await run_demo(agent="claude", port=0, data_dir=tmp_path)
    with pytest.raises(DemoFailed, match="has no agent 'gpt'"):
        await run_demo(agent="gpt", port=0, data_dir=tmp_path)


def program(path: Path) -> Path:
    path.parent.mkdir(parents=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


def test_claude_needs_credentials_and_gets_them_by_our_names(tmp_path: Path) -> None:
    place = program(tmp_path / "bin" / "claude").parent
    with pytest.raises(DemoFailed, match="ANTHROPIC_API_KEY"):
        claude_settings({"PATH": str(place)})
    settings = claude_settings(
        {"PATH": str(place), "ANTHROPIC_API_KEY": "sk", "ANTHROPIC_BASE_URL": "https://gate.example/v1"}
    )
    assert settings["SANDPIPER_ANTHROPIC_API_KEY"] == "sk"
    assert settings["SANDPIPER_ANTHROPIC_BASE_URL"] == "https://gate.example/v1"
    assert settings["SANDPIPER_EGRESS_ALLOW"] == "gate.example:443"


def test_boxes_get_to_see_a_claude_that_lives_elsewhere(tmp_path: Path) -> None:
    single = program(tmp_path / "share" / "versions" / "2.1")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "claude").symlink_to(single)
    settings = claude_settings({"PATH": str(tmp_path / "bin"), "ANTHROPIC_API_KEY": "sk"})
    assert settings["SANDPIPER_SANDBOX_TOOLS"] == str(single.parent)
    assert settings["SANDPIPER_AGENT_CLAUDE"] == str(single)
    node = tmp_path / "node"
    script = program(node / "lib" / "node_modules" / "@anthropic-ai" / "claude-code" / "cli.js")
    (node / "bin").mkdir()
    (node / "bin" / "claude").symlink_to(script)
    settings = claude_settings({"PATH": str(node / "bin"), "CLAUDE_CODE_OAUTH_TOKEN": "token"})
    assert settings["SANDPIPER_SANDBOX_TOOLS"] == str(node)
    assert settings["SANDPIPER_ANTHROPIC_AUTH_TOKEN"] == "token"


def test_the_simulators_are_never_asked_for_through_a_proxy() -> None:
    kept = surroundings({"PATH": "/bin", "https_proxy": "http://proxy", "no_proxy": "corp", "EDITOR": "vi"})
    assert kept == {"PATH": "/bin", "https_proxy": "http://proxy", "NO_PROXY": "corp,127.0.0.1,localhost,::1"}
