"""Which of our egress modes E2B's network rules can say, and how."""

from __future__ import annotations

import pytest

from bot.errors import SettingsError
from sandbox.e2b_network import network_of


def test_open_denies_private_networks_alone() -> None:
    rules = network_of("open", ["db.example.com:5432"])
    assert rules.keys() == {"deny_out"}
    assert "169.254.0.0/16" in rules["deny_out"]


def test_registries_deny_all_but_these_hosts() -> None:
    rules = network_of("registries", ["*.example.com:443", "93.184.216.34:5432"])
    assert rules["deny_out"] == ["0.0.0.0/0"]
    assert {"api.anthropic.com", "pypi.org", "*.example.com", "93.184.216.34"} <= set(rules["allow_out"])
    assert not any(":" in host for host in rules["allow_out"])


def test_a_list_is_that_list() -> None:
    assert network_of("list", ["example.com:443", "example.com:80"]) == {
        "allow_out": ["example.com"],
        "deny_out": ["0.0.0.0/0"],
    }


def test_any_host_on_443_is_open_in_each_mode() -> None:
    assert network_of("list", ["*:443"]) == network_of("open", [])


@pytest.mark.parametrize(
    ("allow", "why"),
    [
        ((), "is empty"),
        (("example.com",), "is not host:port"),
        (("example.com:5432",), r"no host .* on port 5432.*IPv4"),
        (("*:80",), "takes no '\\*'"),
        (("a.*.com:443",), "names no host"),
        (("10.0.0.7:443",), "no public address"),
        (("169.254.169.254:80",), "no public address"),
        (("[2606:4700::1]:443",), "no IPv6"),
    ],
)
def test_what_it_cannot_keep_to_is_a_settings_error(allow: tuple[str, ...], why: str) -> None:
    with pytest.raises(SettingsError, match=f"SANDPIPER_EGRESS_ALLOW.*{why}"):
        network_of("list", allow)
