"""Take secrets out of text before it is stored or shown. Pure; it errs on the side of taking too much."""

from __future__ import annotations

import re
from collections.abc import Iterable

HIDDEN = "[redacted]"

# Exact secrets shorter than this would hide ordinary words.
SHORTEST_KNOWN = 8

# A run of secret characters. Bounded below so that names of prefixes ("the xoxb- token") stay readable.
_RUN = r"[A-Za-z0-9_\-]"

_TOKENS = re.compile(
    "|".join(
        (
            rf"sk-ant-{_RUN}{{8,}}",  # Anthropic
            rf"(?<![A-Za-z0-9])sk-(?=[A-Za-z_\-]{{0,100}}[0-9]){_RUN}{{20,}}",  # OpenAI and others
            r"gh[oprsu]_[A-Za-z0-9_.\-]{16,}",  # GitHub; ghs_ tokens may carry a JWT
            r"github_pat_[A-Za-z0-9_]{16,}",
            rf"glpat-{_RUN}{{16,}}",  # GitLab
            rf"xox[a-z](?:\.xox[a-z])?-{_RUN}{{8,}}",  # Slack
            rf"xapp-{_RUN}{{8,}}",
            r"hooks\.slack\.com/(?:services|workflows|triggers|commands|actions)/[A-Za-z0-9/_\-]{8,}",
            r"\b(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}\b",  # AWS key ids
            r"\bAIza[A-Za-z0-9_\-]{35}",  # Google
            r"\bnpm_[A-Za-z0-9]{30,}",
            r"\bpypi-[A-Za-z0-9_\-]{30,}",
            r"\bhf_[A-Za-z0-9]{30,}",
            r"\b[sr]k_(?:live|test)_[A-Za-z0-9]{16,}",  # Stripe
            r"\bdtn_[A-Za-z0-9]{30,}",  # Daytona
            r"\be2b_[A-Za-z0-9]{30,}",
            rf"\bspc_[0-9]{{1,20}}_[0-9]{{1,20}}_{_RUN}{{20,}}",  # our own, for code on demand
            r"\beyJ[A-Za-z0-9_\-]{8,1000}\.eyJ[A-Za-z0-9_\-]{8,}\.[A-Za-z0-9_\-]{8,}",  # JSON web tokens
        )
    )
)

# One of these is in every token above. Looking for them first is what makes ordinary text cheap.
# fmt: off
_TOKEN_SIGNS = (
    "sk-", "gho_", "ghp_", "ghr_", "ghs_", "ghu_", "github_pat_", "glpat-", "xox", "xapp-",
    "hooks.slack.com/", "AKIA", "ASIA", "ABIA", "ACCA", "AIza", "npm_", "pypi-", "hf_", "k_live_", "k_test_",
    "dtn_", "e2b_", "spc_", "eyJ",
)
# fmt: on

# A key that is cut off at its end is still a key.
_PRIVATE_KEY = re.compile(
    r"-----BEGIN (?P<kind>[A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?)-----"
    r"(?:(?!-----END ).)*(?:-----END (?P=kind)-----|\Z|(?=-----END ))",
    re.DOTALL,
)

# What stands before the secret is kept, so that people see what it was. Words without a digit after
# "bearer" are prose, and unquoted values with spaces around the sign are code.
_AFTER = (
    re.compile(
        r"(?i)(?P<before>\b(?:bearer|authorization\"?:\s*\"?(?:basic|token))\s+)"
        r"(?P<secret>(?=[a-z_\-.~+/]*[0-9])[a-z0-9_\-.~+/]{16,}=*)"
    ),
    re.compile(r"(?P<before>://[^\s/:@]*:)(?P<secret>[^\s/@]+)(?=@)"),
    re.compile(
        r"(?i)(?P<before>aws_?(?:secret_?access_?key|session_?token)[\"']?\s*[=:]\s*[\"']?)"
        r"(?P<secret>[a-z0-9/+=]{16,})"
    ),
    re.compile(
        r"(?P<before>\b[A-Z0-9_]*(?:KEY|TOKEN|SECRET|PASSWORD|PASSWD)=)(?P<secret>[^\s\"'$(){}<>\[\],;]{12,})"
    ),
    re.compile(
        r"(?P<before>\b[A-Z0-9_]*(?:KEY|TOKEN|SECRET|PASSWORD|PASSWD)[\"']?\s{0,2}[=:]\s{0,2}(?P<q>[\"']))"
        r"(?P<secret>[^\s\"'$]{12,})(?=(?P=q))"
    ),
)


def redact_tokens(text: str, known: Iterable[str] = ()) -> str:
    """`text` without the `known` secrets and without tokens, whose characters mean nothing to a shell or a
    program: so what is left says all that would be done."""
    for secret in known:
        if len(secret) >= SHORTEST_KNOWN:
            text = text.replace(secret, HIDDEN)
    if any(sign in text for sign in _TOKEN_SIGNS):
        text = _TOKENS.sub(HIDDEN, text)
    return text


def redact(text: str, known: Iterable[str] = ()) -> str:
    """`text` without secrets: the `known` ones exactly, others by their form.

    Redacting twice changes nothing.
    """
    text = _PRIVATE_KEY.sub(HIDDEN, redact_tokens(text, known))
    for pattern in _AFTER:
        text = pattern.sub(lambda match: match["before"] + HIDDEN, text)
    return text
