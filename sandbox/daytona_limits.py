"""How large a sandbox the account at Daytona may have, asked before a snapshot of that size is built.

By the routes and models of the SDK's own client (daytona_api_client_async 0.226). Not every key may read
them: then nothing is known here, and Daytona's refusal of the snapshot says it.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass

from aiohttp import ClientError
from pydantic import ValidationError

from sandbox.daytona_account import Account

log = logging.getLogger(__name__)

WITHIN = 60.0  # seconds
CONTAINER = "container"  # the class of sandboxes that a snapshot of a Dockerfile is for


@dataclass(frozen=True, slots=True)
class Limit:
    """name: cpu, memory or disk. most: for one sandbox; memory and disk in GiB. where: whose limit it is, in
    words."""

    name: str
    most: float
    where: str


async def limits_of(account: Account) -> tuple[Limit, ...]:
    """Of the organisation that the key belongs to, in the account's region; () where the key may not read
    them."""
    from daytona_api_client_async import ApiClient, ApiKeysApi, Configuration, OrganizationsApi
    from daytona_api_client_async.exceptions import OpenApiException

    asked = Configuration(host=account.api_url, access_token=account.api_key)
    try:
        async with asyncio.timeout(WITHIN), ApiClient(asked) as api:
            key = await ApiKeysApi(api).get_current_api_key()
            if not key.organization_id:
                return ()
            organizations = OrganizationsApi(api)
            about = await organizations.get_organization(key.organization_id)
            usage = await organizations.get_organization_usage_overview(key.organization_id)
    except (OpenApiException, ClientError, TimeoutError, ValidationError) as error:
        log.info("the account's limits are not told: %s", type(error).__name__)
        return ()
    region = account.target or about.default_region_id
    quota = next(
        (one for one in usage.region_usage if (one.region_id, one.sandbox_class) == (region, CONTAINER)), None
    )
    found = []
    for name in ("cpu", "memory", "disk"):
        # A region's own limit holds instead of the organisation's, whichever is larger.
        own = getattr(quota, f"max_{name}_per_sandbox", None)
        whole = getattr(about, f"max_{name}_per_sandbox")
        where = f"in the region {region}" if own is not None else f"of {about.name}"
        found.append(Limit(name, whole if own is None else own, where))
    kept = getattr(quota, "max_disk_per_non_ephemeral_sandbox", None)
    if kept is not None:
        found.append(Limit("disk", kept, f"for sandboxes that are kept, in the region {region}"))
    return tuple(found)
