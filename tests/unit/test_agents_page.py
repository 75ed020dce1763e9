"""docs/agents.md says what the codecs declare, and what the suite saw."""

from __future__ import annotations

import json

from tests.agents.document import PAGE, VERIFIED, written


def test_the_page_is_what_make_verify_would_write() -> None:
    page = PAGE.read_text()
    assert written(page, json.loads(VERIFIED.read_text())) == page
