"""Whose the API key is, as Daytona says: the organization that all boxes are of which it finds.

A box names its organization, too, but an account without one would then have no name, and to a key of such an
account every box that we know is gone.
"""

from __future__ import annotations

import logging
from typing import Any

from bot.errors import ProviderAway
from sandbox.daytona_account import Account
from sandbox.daytona_errors import Refusal, meaning

log = logging.getLogger(__name__)

WITHIN = 20.0  # seconds
REFUSED_KEY = 401


async def organization_of(account: Account) -> str:
    """ "": this Daytona does not say it. Raises ProviderAway when it cannot be asked now, ProviderUnavailable
    for a key that it does not take."""
    from aiohttp import ClientError
    from daytona_api_client_async import ApiClient, ApiException, ApiKeysApi, Configuration

    client: Any = ApiClient(Configuration(host=account.api_url))
    client.default_headers["Authorization"] = f"Bearer {account.api_key}"
    try:
        key = await ApiKeysApi(client).get_current_api_key(_request_timeout=WITHIN)
    except ApiException as error:
        headers = {str(name): str(value) for name, value in (error.headers or {}).items()}
        no = meaning(Refusal(error.status or None, str(error.reason), headers))
        if isinstance(no, ProviderAway) or error.status == REFUSED_KEY:
            raise no from error
        log.info("Daytona does not say of which organization the API key is: %s", no)
        return ""
    except (ClientError, TimeoutError, OSError) as error:
        raise ProviderAway(f"Daytona does not answer: {str(error) or type(error).__name__}.") from error
    except ValueError as error:  # not of the form that its client knows
        log.info("Daytona does not say of which organization the API key is: %s", type(error).__name__)
        return ""
    finally:
        await client.close()
    return key.organization_id or ""
