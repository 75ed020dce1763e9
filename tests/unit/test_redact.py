"""Secrets never reach what is stored or shown; ordinary text stays as it is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.redact import HIDDEN, redact

# Put together here, so that no scanner takes this file for a leak.
SECRETS = [
    "sk-ant-" + "api03-" + "aB3_" * 12,
    "sk-" + "proj-" + "Zx9" * 12,
    "sk-" + "a1B2" * 12,
    "ghs_" + "16C7e42F292c6912E7710c838347Ae178B4a",
    "ghp_" + "16C7e42F292c6912E7710c838347Ae178B4a",
    "github_pat_" + "11ABCDEFG0" + "x" * 40,
    "xoxb-" + "1234567890-1234567890123-AbCdEfGhIjKl",
    "xoxe.xoxp-" + "1-Mi0yLTEyMzQ1Njc4OTA",
    "xapp-" + "1-A0123456789-0123456789",
    "AKIA" + "IOSFODNN7EXAMPLE",
    "glpat-" + "a1b2c3d4e5f6g7h8i9j0",
    "eyJ" + "hbGciOiJIUzI1NiJ9.eyJ" + "zdWIiOiIxMjM0In0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9P",
    "AIza" + "SyA-1234567890abcdefghijklmnopqrstu",
]

PLAIN = [
    "Fixed greet() and slugify(); 12 tests pass.",
    "the xoxb- prefix marks a bot token, sk-ant- a model key",
    "token validation_of_the_session is in auth.py",
    "MAX_TOKENS=4096",
    "API_KEY = os.environ.get('API_KEY')",
    "https://github.com/acme/web/pull/3",
    "postgres://localhost:5432/web",
    "git@github.com:acme/web.git",
    "def secret_santa(names): ...",
    "commit 2f1c9ab7d0e4c56b8a9d0e1f2a3b4c5d6e7f8a9b",
    "keyboard: KEY: enter",
    "risk-assessment-of-the-whole-department",
]


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("around", ["{}", "key={} end", "it printed\n{}\nand stopped", 'x = "{}"', "<{}>"])
def test_a_secret_is_taken_out_wherever_it_stands(secret: str, around: str) -> None:
    clean = redact(around.format(secret))
    assert secret not in clean
    assert HIDDEN in clean


@pytest.mark.parametrize("text", PLAIN)
def test_ordinary_text_stays(text: str) -> None:
    assert redact(text) == text


def test_private_keys_go_whole_and_when_cut_off() -> None:
    body = "\n".join(["MIIEpAIBAAKCAQEA1234567890abcdef"] * 8)
    whole = f"-----BEGIN RSA PRIVATE KEY-----\n{body}\n-----END RSA PRIVATE KEY-----"
    assert redact(f"before\n{whole}\nafter") == f"before\n{HIDDEN}\nafter"
    cut = redact(f"before\n-----BEGIN OPENSSH PRIVATE KEY-----\n{body[:80]}")
    assert cut == f"before\n{HIDDEN}"


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("Authorization: Bearer abcDEF1234567890xyz", f"Authorization: Bearer {HIDDEN}"),
        ("Authorization: Basic dXNlcjpwYXNzd29yZDE=", f"Authorization: Basic {HIDDEN}"),
        (
            "https://x-access-token:abc123@github.com/acme/web",
            f"https://x-access-token:{HIDDEN}@github.com/acme/web",
        ),
        ("ANTHROPIC_API_KEY=abcdefghijklmnop", f"ANTHROPIC_API_KEY={HIDDEN}"),
        ("DB_PASSWORD = 'correct-horse-battery'", f"DB_PASSWORD = '{HIDDEN}'"),
        ("aws_secret_access_key = wJalrXUtnFEMIK7MDENGbPxRfiCY", f"aws_secret_access_key = {HIDDEN}"),
    ],
)
def test_what_stands_before_a_secret_is_kept(text: str, clean: str) -> None:
    assert redact(text) == clean


def test_a_known_secret_is_taken_out_whatever_its_form() -> None:
    assert redact("the key is plain-words-here.", ["plain-words-here"]) == f"the key is {HIDDEN}."
    assert redact("a short one stays", ["a"]) == "a short one stays"


@given(st.text(alphabet=st.sampled_from("sk-antghp_xob:/@=KEYBearer \n\"'1aZ"), max_size=200))
def test_redacting_twice_changes_nothing(text: str) -> None:
    once = redact(text)
    assert redact(once) == once
