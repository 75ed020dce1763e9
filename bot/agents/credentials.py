"""Logins on their way into a sandbox: what could renew them stays outside.

A refresh token makes new logins for whoever has it, and using it here would end the operator's own. Pure.
"""

from __future__ import annotations

import json
import re

# Anthropic's refresh tokens, by their form.
_REFRESHES = re.compile(r"\s*sk-ant-ort\d")
_FIELD = re.compile(r"refresh", re.IGNORECASE)


def without_refresh(value: str) -> str:
    """A credential that may enter a sandbox: of a login in JSON, with its refresh fields blank.

    Raises ValueError for what is a refresh token itself.
    """
    if _REFRESHES.match(value):
        raise ValueError("a refresh token")
    if not value.lstrip().startswith(("{", "[")):
        return value
    try:
        login = json.loads(value)
    except ValueError:
        return value
    blanked = _blanked(login)
    return value if blanked == login else json.dumps(blanked)


def _blanked(value: object, name: str = "") -> object:
    if isinstance(value, dict):
        return {key: _blanked(item, str(key)) for key, item in value.items()}
    if isinstance(value, list):
        return [_blanked(item, name) for item in value]
    if isinstance(value, str) and (_FIELD.search(name) or _REFRESHES.match(value)):
        return ""
    return value
