"""A model's API on the bot's own host: the sandbox has to be given a way to it."""

from __future__ import annotations

from ipaddress import ip_address
from urllib.parse import urlsplit


def loopback_ports(url: str) -> tuple[int, ...]:
    """The port of a URL that points at the bot's own host, so that the sandbox gets a way to it."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    try:
        loopback = host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        loopback = False
    if not loopback:
        return ()
    return (parts.port or (443 if parts.scheme == "https" else 80),)
