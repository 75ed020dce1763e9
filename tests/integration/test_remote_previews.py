"""A server in a remote box that one person looks at: through the gate, and the supervisor's door. What passes
on the way there is neither the page's nor the server's to know."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import aiohttp
import pytest

from bot.errors import SandboxError, SandboxUnreachable
from bot.models import Launch
from bot.ports import Provider, Sandbox
from sandbox.box import Address
from sandbox.container import Engine
from sandbox.docker import DockerProvider, docker_provider
from sandbox.port_tunnel import Tunnels
from sandbox.remote_supervisor import Door
from tests.certificates import make_authority
from tests.certificates import serving as serving_tls
from tests.docker_engine import IMAGE, DockerEngine
from tests.e2b_server import E2BServer, NearE2B
from tests.port_people import Person, browser, leads, opened, serving, shown, until
from tests.remote_boxes import DirectoryProvider, entered, free_port

HOST = "127.0.0.1"
# Echoes what comes by a WebSocket, made with nothing but the standard library.
ECHO = """
import base64, hashlib, socket, sys
server = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    near, _ = server.accept()
    head, keys = b"", []
    while b"\\r\\n\\r\\n" not in head and (more := near.recv(1)):
        head += more
    for line in head.split(b"\\r\\n"):
        if line.lower().startswith(b"sec-websocket-key"):
            keys.append(line.split(b": ")[1])
    if not keys:
        near.close()
        continue
    word = base64.b64encode(hashlib.sha1(keys[0] + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
    near.sendall(b"HTTP/1.1 101 Switching Protocols\\r\\nUpgrade: websocket\\r\\nConnection: Upgrade\\r\\n"
                 b"Sec-WebSocket-Accept: " + word + b"\\r\\n\\r\\n")
    size = near.recv(2)[1] & 127
    mask = near.recv(4)
    said = bytes(byte ^ mask[n % 4] for n, byte in enumerate(near.recv(size)))
    near.sendall(bytes([0x81, len(said)]) + said)
    near.close()
"""


@pytest.fixture
async def e2b_server(tmp_path: Path) -> AsyncIterator[E2BServer]:
    server = E2BServer(tmp_path / "e2b")
    await server.start()
    yield server
    await server.close()


@pytest.fixture(params=["e2b", "docker"])
async def provider(
    request: pytest.FixtureRequest, tmp_path: Path, e2b_server: E2BServer, engine: DockerEngine
) -> AsyncIterator[Provider]:
    provider: Provider
    if request.param == "e2b":
        provider = NearE2B(e2b_server.account(), ports_host=HOST)
    else:
        pytest.importorskip("aiodocker", reason="the extra `docker` is not installed")
        provider = DockerProvider(tmp_path / "docker", Engine(engine.url, IMAGE), (), ports_host=HOST)
    yield provider
    for sandbox in await provider.find({}):
        await sandbox.delete()
    await provider.close()


@pytest.fixture
async def sandbox(provider: Provider) -> Sandbox:
    return await entered(provider.create({"person": "ana"}))


async def test_one_person_sees_what_the_agent_serves_and_nobody_else_does(sandbox: Sandbox) -> None:
    port, ana = free_port(), Person()
    async with serving(sandbox, port) as entrance, browser() as mine, browser() as other:
        link = await shown(sandbox, port, entrance, ana.guard())
        base = link.url.partition("/.sandpiper")[0]
        assert (await other.get(f"{base}/")).status_code == 403
        assert (await opened(mine, link)).json()["path"] == "/"
        assert (await mine.get(f"{base}/a?b=c")).json()["path"] == "/a?b=c"
        body = b"said" * 200_000
        assert (await mine.post(f"{base}/", content=body)).content == body
        for answer in (await other.get(f"{base}/a"), await other.post(link.url)):
            assert answer.status_code in (403, 410)
        several = await asyncio.gather(*(mine.get(f"{base}/{n}") for n in range(20)))
        assert [answer.json()["path"] for answer in several] == [f"/{n}" for n in range(20)]
        assert ana.asked == 1, "a page has many parts"


async def test_neither_server_nor_page_sees_what_opens_the_doors_on_the_way(
    sandbox: Sandbox, e2b_server: E2BServer
) -> None:
    port = free_port()
    async with serving(sandbox, port) as entrance, browser() as mine:
        page = await opened(mine, await shown(sandbox, port, entrance, Person().guard()))
        mine.cookies.set("theirs", "1")
        again = await mine.get(str(page.url))
        on_the_way = ("e2b-", "x-sandpiper", "x-access", "sec-websocket")
        assert not [name for name in again.json()["headers"] if name.lower().startswith(on_the_way)]
        assert again.json()["headers"]["cookie"] == "theirs=1", "and not the gate's"
        for kept in e2b_server.boxes.values():
            assert kept.traffic and kept.token
            for secret in (kept.traffic, kept.token):
                assert secret not in f"{page.text}{page.headers}{again.text}{again.headers}"


async def test_a_browser_cannot_speak_to_the_provider_and_the_door(sandbox: Sandbox) -> None:
    """It names another box, port and process; all of it is the server's to read."""
    port, other = free_port(), free_port()
    async with serving(sandbox, port) as entrance, browser() as mine:
        here = str((await opened(mine, await shown(sandbox, port, entrance, Person().guard()))).url)
        named = {"E2b-Sandbox-Port": str(other), "E2b-Sandbox-Id": "other", "X-Sandpiper-Token": "guess"}
        for path in ("p/turn-1-1/status", "port/22", "..%2f..%2fapi/v2/sandboxes"):
            answer = (await mine.get(f"{here}{path}", headers=named)).json()
            assert answer["path"] == f"/{path}"
            assert answer["headers"]["e2b-sandbox-port"] == str(other)


async def test_two_requests_are_not_smuggled_as_one(sandbox: Sandbox) -> None:
    port = free_port()
    async with serving(sandbox, port) as entrance, browser() as mine:
        here = str((await opened(mine, await shown(sandbox, port, entrance, Person().guard()))).url)
        cookie = "; ".join(f"{name}={value}" for name, value in mine.cookies.items())
        at = here.removeprefix("http://").rstrip("/").rpartition(":")
        for more in ("", "Content-Length: 0\r\n"):
            reader, writer = await asyncio.open_connection(at[0], int(at[2]))
            one = f"GET /one HTTP/1.1\r\nHost: x\r\n{more}Cookie: {cookie}\r\n\r\n"
            writer.write(f"{one}GET /two HTTP/1.1\r\nHost: x\r\nCookie: {cookie}\r\n\r\n".encode())
            answered = await asyncio.wait_for(reader.read(), 30)
            writer.close()
            assert b"/one" in answered and b"/two" not in answered
        own = "Host: x\r\nOrigin: http://x\r\n"
        for wrong in ("Transfer-Encoding: chunked\r\n", "Content-Length: 1\r\nContent-Length: 2\r\n"):
            reader, writer = await asyncio.open_connection(at[0], int(at[2]))
            writer.write(f"POST / HTTP/1.1\r\n{own}{wrong}Cookie: {cookie}\r\n\r\n0\r\n\r\n".encode())
            assert (await asyncio.wait_for(reader.read(), 30))[9:12] in (b"400", b"411")
            writer.close()


async def test_a_websocket_of_the_page_goes_through(sandbox: Sandbox) -> None:
    port = free_port()
    async with serving(sandbox, port, ECHO) as entrance:
        link = await shown(sandbox, port, entrance, Person().guard())
        async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as mine:
            own = link.url.partition("/.sandpiper")[0]
            headers = {"Origin": own}
            async with mine.post(link.url, headers=headers, allow_redirects=False) as pressed:
                assert pressed.status == 303
            async with mine.ws_connect(own, origin=own) as ws:
                await ws.send_bytes(b"still here")
                assert (await ws.receive(timeout=30)).data == "still here"


async def test_what_an_agent_shares_is_open_until_it_is_concealed(sandbox: Sandbox) -> None:
    port = free_port()
    async with serving(sandbox, port) as entrance, browser() as mine:
        await shown(sandbox, port, entrance, Person().guard())
        first = await sandbox.expose(port, "way", entrance=entrance)
        assert first.bearer == 0.0 and await leads(mine, first.url)
        again = await sandbox.expose(port, "way", entrance=entrance)
        assert not await leads(mine, first.url) and await leads(mine, again.url)
        await sandbox.conceal("way")
        assert not await leads(mine, again.url)


async def test_another_object_for_the_same_sandbox_conceals_it_too(
    provider: Provider, sandbox: Sandbox
) -> None:
    port = free_port()
    async with serving(sandbox, port) as entrance, browser() as mine:
        here = str((await opened(mine, await shown(sandbox, port, entrance, Person().guard()))).url)
        await (await provider.get(sandbox.id)).conceal(entrance)
        assert not await leads(mine, here)


async def test_a_server_that_ends_and_comes_back_is_seen_again(sandbox: Sandbox) -> None:
    port = free_port()
    async with browser() as mine:
        async with serving(sandbox, port) as entrance:
            here = str((await opened(mine, await shown(sandbox, port, entrance, Person().guard()))).url)

        async def over() -> bool:
            return not await leads(mine, here)

        await until(over)
        answer = await mine.get(here)
        assert (answer.status_code, f"Nothing listens on port {port}" in answer.text) == (502, True)
        async with serving(sandbox, port) as entrance:
            await shown(sandbox, port, entrance, Person().guard())
            assert await leads(mine, here)


async def test_the_supervisors_and_the_providers_own_ports_are_nobodys_to_see(e2b_server: E2BServer) -> None:
    provider = NearE2B(e2b_server.account(), ports_host=HOST)
    sandbox = await entered(provider.create({}))
    door = int(sandbox.id.rpartition("-")[2])
    for port in (door, 49983):
        for guard in (Person().guard(), None):
            with pytest.raises(SandboxError, match="not the agent's"):
                await sandbox.expose(port, "", guard=guard)
    await provider.close()


async def test_services_of_the_bots_machine_are_not_shown_by_way_of_a_container(
    tmp_path: Path, engine: DockerEngine
) -> None:
    pytest.importorskip("aiodocker", reason="the extra `docker` is not installed")
    heard: list[bytes] = []

    async def ours(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.read(100))
        writer.close()

    server = await asyncio.start_server(ours, HOST, 0)
    service, other = server.sockets[0].getsockname()[1], free_port()
    named = (f"{HOST}:{service}",)
    provider = docker_provider(
        tmp_path / "docker", host=engine.url, image=IMAGE, loopback=named, ports_host=HOST
    )
    async with server:
        sandbox = await entered(provider.create({}))
        await sandbox.run(Launch(("true",), sandbox.home, loopback=(other,)))
        for port in (service, other):
            for guard in (Person().guard(), None):
                with pytest.raises(SandboxError, match="not the agent's"):
                    await sandbox.expose(port, "", guard=guard)
        assert heard == []
        await sandbox.delete()
    await provider.close()


@pytest.mark.parametrize("kind", ["e2b", "docker", "remote"])
async def test_without_an_address_it_is_a_clear_no(
    kind: str, tmp_path: Path, e2b_server: E2BServer, engine: DockerEngine
) -> None:
    makes: dict[str, Callable[[], Provider]] = {
        "e2b": lambda: NearE2B(e2b_server.account()),
        "docker": lambda: DockerProvider(tmp_path / "docker", Engine(engine.url, IMAGE), ()),
        "remote": lambda: DirectoryProvider(tmp_path / "boxes"),
    }
    provider = makes[kind]()
    sandbox = await entered(provider.create({}))
    with pytest.raises(SandboxError, match="SANDPIPER_SANDBOX_PORTS_HOST"):
        await sandbox.expose(3000, "", guard=Person().guard())
    await sandbox.delete()
    await provider.close()


async def test_without_a_door_there_is_no_way(tmp_path: Path) -> None:
    provider = DirectoryProvider(tmp_path / "boxes", door=False, ports_host=HOST)
    sandbox = await entered(provider.create({}))
    with pytest.raises(SandboxUnreachable, match="way to the sandbox's ports"):
        await sandbox.expose(3000, "", guard=Person().guard())
    await sandbox.delete()
    await provider.close()


async def test_a_link_in_the_doors_place_leads_to_no_socket_of_this_machine(
    tmp_path: Path, engine: DockerEngine
) -> None:
    pytest.importorskip("aiodocker", reason="the extra `docker` is not installed")
    provider = DockerProvider(tmp_path / "docker", Engine(engine.url, IMAGE), (), ports_host=HOST)
    sandbox = await entered(provider.create({}))
    heard: list[bytes] = []

    async def ours(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.read(100))
        writer.close()

    port = free_port()
    server = await asyncio.start_unix_server(ours, str(tmp_path / "ours.sock"))
    async with server, serving(sandbox, port) as entrance, browser() as mine:
        here = str((await opened(mine, await shown(sandbox, port, entrance, Person().guard()))).url)
        swap = f"rm /run/sandpiper/door/sock && ln -s {tmp_path}/ours.sock /run/sandpiper/door/sock"
        await sandbox.run(Launch(("sh", "-c", swap), sandbox.home))
        await leads(mine, here)
        assert heard == []
    await sandbox.delete()
    await provider.close()


async def test_the_doors_token_goes_to_no_server_whose_certificate_is_not_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "port").mkdir()
    authority = make_authority(tmp_path)
    with serving_tls(authority, tmp_path) as port, caplog.at_level("INFO", "sandbox.port_tunnel"):
        door = Door(Address(f"https://{HOST}:{port}", {"E2b-Traffic-Access-Token": "t"}), "token")
        assert await Tunnels().enter(door, 80) is None
        assert "Certificate" in caplog.text and "answers" not in caplog.text
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.bundle))
        assert await Tunnels().enter(door, 80) is None
        assert "the door's place answers 404" in caplog.text, "the operator's authorities are known"
    assert "'token'" not in repr(door)
