"""What every provider promises about ports that people look at."""

from __future__ import annotations

import pytest

from bot.errors import SandboxError
from bot.ports import Sandbox
from tests.port_people import Person, browser, leads, opened, serving, shown
from tests.remote_boxes import free_port


async def test_a_port_is_shown_to_people_until_it_is_concealed(sandbox: Sandbox) -> None:
    port = free_port()
    async with serving(sandbox, port) as entrance, browser() as mine:
        link = await shown(sandbox, port, entrance, Person().guard())
        page = await opened(mine, link)
        assert page.status_code == 200 and page.json()["path"] == "/"
        assert link.bearer in (0.0, 3600.0)
        here = str(page.url)
        assert await leads(mine, here)
        await sandbox.conceal(entrance)
        assert not await leads(mine, here)
        await sandbox.conceal(entrance)


async def test_where_nothing_listens_there_is_no_link(sandbox: Sandbox) -> None:
    port, nobody = free_port(), free_port()
    async with serving(sandbox, port) as entrance:
        await shown(sandbox, port, entrance, Person().guard())
        with pytest.raises(SandboxError, match=f"Nothing listens on port {nobody} there"):
            await sandbox.expose(nobody, "", entrance=entrance, guard=Person().guard())
