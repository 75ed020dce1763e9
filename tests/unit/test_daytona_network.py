"""Our egress modes as Daytona's rules, and what these cannot say."""

from __future__ import annotations

import pytest

from bot.errors import SettingsError
from sandbox.daytona_network import MOST_NAMES, NAME, OPEN, network_of
from sandbox.egress_modes import REGISTRIES
from sandbox.inside.egress import matches, split_host


def test_the_registries_fit_and_none_is_left_out() -> None:
    network = network_of("registries", ())
    assert len(network.names) <= MOST_NAMES
    assert all(NAME.fullmatch(name) for name in network.names)
    for entry in REGISTRIES:
        host, _ = split_host(entry)
        assert any(matches(name, host) for name in network.names), host
    assert not network.networks
    assert not network.warning


def test_open_has_no_rule() -> None:
    assert network_of("open", ()) == OPEN
    assert network_of("open", ()).wanted() == {"network_block_all": False}
    assert network_of("list", ("*:443",)) == OPEN


def test_a_list_of_hosts_and_one_of_addresses() -> None:
    hosts = network_of("list", ("api.anthropic.com:443", "*.example.com:443", "a.example.com:443"))
    assert hosts.wanted() == {"domain_allow_list": "api.anthropic.com,*.example.com"}
    addresses = network_of("list", ("93.184.215.14:443",))
    assert addresses.wanted() == {"network_allow_list": "93.184.215.14/32"}


@pytest.mark.parametrize(
    ("mode", "allow", "words"),
    [
        ("list", (), "SANDPIPER_EGRESS_ALLOW is empty"),
        ("list", ("example.com",), "not host:port"),
        ("list", ("a.example.com:443", "93.184.215.14:443"), "to names or to addresses"),
        ("registries", ("93.184.215.14:443",), "to names or to addresses"),
        ("list", ("[2606:2800:220:1::]:443",), "no IPv6"),
        ("list", ("localhost:443",), "takes no 'localhost'"),
        ("list", tuple(f"h{n}.example.com:443" for n in range(21)), "take 20 entries.*make 21"),
        ("list", tuple(f"93.184.215.{n}:443" for n in range(11)), "take 10 entries"),
        ("registries", ("example.com:443",), "SANDPIPER_EGRESS_MODE=list"),
    ],
)
def test_what_daytona_has_no_rule_for_is_an_error_at_the_start(
    mode: str, allow: tuple[str, ...], words: str
) -> None:
    with pytest.raises(SettingsError, match=words):
        network_of(mode, allow)  # type: ignore[arg-type]


def test_ports_are_told_not_to_be_kept() -> None:
    assert "no ports" in network_of("list", ("db.example.com:5432",)).warning


def test_a_box_with_the_same_rules_needs_no_change() -> None:
    network = network_of("list", ("a.example.com:443", "b.example.com:443"))
    assert network.holds(False, "b.example.com, a.example.com", None)
    assert not network.holds(False, "a.example.com", None)
    assert not network.holds(True, "a.example.com,b.example.com", None)
    assert not network.holds(False, None, None)
    assert OPEN.holds(None, "", None)
