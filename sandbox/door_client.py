"""The HTTP client by which the bot reaches the doors of boxes that are far away."""

from __future__ import annotations

import ssl

import httpx


def door_client() -> httpx.AsyncClient:
    """No proxy of the bot's environment is between. Trusted are the authorities that Python's packages bring,
    and those that OpenSSL is told of on this machine: the system's, or SSL_CERT_FILE, which names the
    operator's (SANDPIPER_CA_BUNDLE) too."""
    return httpx.AsyncClient(trust_env=False, verify=trusted())


def trusted() -> ssl.SSLContext:
    context = httpx.create_ssl_context(trust_env=False)
    context.load_default_certs()
    return context
