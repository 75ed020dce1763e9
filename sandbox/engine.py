"""The Docker engine that has the sandboxes. The only file that knows its SDK (aiodocker), which is an extra:
it is imported when it is used.

    <directory>/engine    the engine's own name for itself, so that another one is not taken for it
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import aiohttp

from bot.errors import ProviderAway, ProviderUnavailable, SandboxError, SandboxGone, SandboxUnreachable
from sandbox.container import Engine, fit
from sandbox.container_errors import in_our_words
from sandbox.machine import host_of
from sandbox.registry_login import Login, login_of
from sandbox.whole import write_whole

log = logging.getLogger(__name__)

PULL_WITHIN = 1800.0  # seconds
LOOK_WITHIN = 60.0
ID = re.compile(r"sandpiper-[0-9a-f]{16}")


class EngineClient:
    """about: the engine, as the operator's settings have it. mark: the label of all that is ours there."""

    def __init__(self, directory: Path, about: Engine, mark: str) -> None:
        try:
            from aiodocker import Docker
        except ImportError as error:
            raise ProviderUnavailable(
                "The SDK of Docker is not installed.", "Install it: pip install 'aiodocker>=0.27,<0.28'."
            ) from error
        self.about = about
        self.mark = mark
        self._directory = directory
        self._known = directory / "engine"
        self._sdk = Docker
        self._docker: Any = None
        self._pulling = asyncio.Lock()

    @property
    def client(self) -> Any:
        if self._docker is None:  # it wants a running loop
            self._docker = self._sdk(url=self.about.host)
        return self._docker

    async def close(self) -> None:
        if self._docker is not None:
            await self._docker.close()

    async def check(self) -> None:
        """Raises ProviderUnavailable."""
        try:
            with self.told():
                version, about = await self.client.version(), await self.client.system.info()
            fit(self.about, version, about)
            if not await self._is_known(about["ID"]):
                raise ProviderUnavailable(
                    f"{self.about.host} is another Docker engine than the one that has the sandboxes.",
                    f"Set SANDPIPER_DOCKER_HOST to that one. To begin anew, delete {self._known}.",
                )
            await self.demand_disk()
        except (ProviderAway, SandboxUnreachable) as error:
            raise ProviderUnavailable(error.what, error.mend) from error

    async def volume(self, id: str) -> Mapping[str, Any]:
        """What the engine says of a sandbox's volume. Raises SandboxGone."""
        about: dict[str, Any] | None = None
        with self.told(404):
            about = await (await self.client.volumes.get(id)).show()
        if about is not None:
            return about
        with self.told():
            engine = (await self.client.system.info())["ID"]
        if not await self._is_known(engine):
            raise SandboxUnreachable(f"{self.about.host} is another Docker engine than the one of {id}.")
        await self.demand_disk()
        raise SandboxGone(f"There is no sandbox {id} in Docker.")

    @property
    def disk(self) -> str:
        """The volume that is made before those of sandboxes, and that says that these would be there, too."""
        return f"{self.mark}-disk-{host_of(self._directory).rpartition('-')[2]}"

    async def demand_disk(self) -> None:
        """Raises SandboxUnreachable where the engine has none of the volumes that it had: it keeps its name
        without its data root, and all sandboxes would be gone at once."""
        with self.told(404):
            await (await self.client.volumes.get(self.disk)).show()
            return
        had = {place.name for place in self._directory.glob("sandpiper-*") if ID.fullmatch(place.name)}
        with self.told():
            if had:  # pruning takes the one that no container uses
                ours = {"label": [f"{self.mark}=sandbox"]}
                volumes = (await self.client.volumes.list(filters=ours))["Volumes"] or []
                if not had & {volume["Name"] for volume in volumes}:
                    raise SandboxUnreachable(
                        f"The Docker engine at {self.about.host} has none of this bot's volumes any more.",
                        "An operator can look whether its data root is mounted. If the volumes were deleted"
                        f" on purpose: delete the directories {self._directory}/sandpiper-… too.",
                    )
            await self.client.volumes.create({"Name": self.disk, "Labels": {self.mark: "disk"}})

    async def image(self) -> str:
        """The id of the image, which is pulled where it is not there."""
        async with self._pulling:
            name = self.about.image
            for pulled in (False, True):
                with self.told(404):
                    return str((await self.client.images.inspect(name))["Id"])
                if pulled:
                    break
                log.info("Docker pulls the image %s", name)
                with self.told(image=name):
                    async with asyncio.timeout(LOOK_WITHIN):
                        login = await asyncio.to_thread(login_of, name)
                # With a login, the SDK wants to be told the registry.
                full = name if "/" in name or not login.auth else f"docker.io/library/{name}"
                with self.told(image=name, login=login):
                    async with asyncio.timeout(PULL_WITHIN):
                        await self.client.images.pull(full, auth=login.auth)
        raise SandboxError(f"Docker has pulled {name}, but does not have it.")

    @contextlib.contextmanager
    def told(self, *passes: int, image: str = "", login: Login | None = None) -> Iterator[None]:
        """The SDK's errors in our words. passes: answers of the engine that are as good as done. image,
        login: what is being pulled, and with what."""
        from aiodocker import DockerError

        host = self.about.host
        try:
            yield
        except DockerError as error:
            if error.status not in passes:
                raise in_our_words(error, host, image, login) from error
        except (aiohttp.ClientError, OSError) as error:  # a TimeoutError is an OSError
            what = str(error) or type(error).__name__
            if image:
                raise SandboxUnreachable(f"Docker did not get to pull {image}: {what}.") from error
            raise SandboxUnreachable(f"The Docker engine at {host} does not answer: {what}.") from error

    async def _is_known(self, engine: str) -> bool:
        """Whether it is the engine that we have always had; the first one is."""
        if not (self._known.exists() and self._known.stat().st_size):  # or a full disk left an empty one
            write_whole(self._known, engine)
        return self._known.read_text(encoding="utf-8") == engine
