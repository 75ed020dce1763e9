"""How much Slack takes, and how often.

Sizes: docs.slack.dev, reference of Block Kit and of chat.postMessage and chat.update. Rates: docs.slack.dev
"Rate limits", with each method's tier as in slackapi/java-slack-sdk `metadata/web-api/rate_limit_tiers.json`.
"""

import json
import time
from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

TEXT_TRUNCATED_AT = 40_000
# chat.postMessage cuts a long text, chat.update refuses it.
UPDATE_TEXT_LIMIT = 4_000
MARKDOWN_LIMIT = 12_000
BLOCKS_PER_MESSAGE = 50
ATTACHMENTS_PER_MESSAGE = 100
METADATA_BYTES = 8_192
FILE_BYTES = 1_000_000_000
ALT_TEXT_LIMIT = 1_000
RESPONSE_URL_USES = 5
RESPONSE_URL_SECONDS = 30 * 60
SOCKETS_PER_APP = 10
# Measured by users, not documented (slackapi/bolt-js issues 2509 and 2867): markdown alone fails above
# 13,297 characters, and the containers of blocks count as well. So what counts here is the JSON.
BLOCKS_TOTAL_LIMIT = 13_200


@dataclass(frozen=True, slots=True)
class Rate:
    """At most `calls` within any `seconds`; counted for each channel by itself if `per_channel`."""

    calls: int
    seconds: float
    per_channel: bool = False


TIER_1 = Rate(10, 60)  # Slack says "1+ per minute" and lets a starting program open its few sockets
TIER_2 = Rate(20, 60)
TIER_3 = Rate(50, 60)
TIER_4 = Rate(100, 60)
HUNDREDS = Rate(300, 60)
# One message a second in a channel, where a short burst is let through.
POSTING = Rate(5, 5, per_channel=True)

Rates = Mapping[str, tuple[Rate, ...]]

NO_RATES: Rates = {}
DEFAULT_RATES: Rates = {
    "apps.connections.open": (TIER_1,),
    "auth.test": (HUNDREDS,),
    "chat.delete": (TIER_3,),
    "chat.getPermalink": (HUNDREDS,),
    "chat.postEphemeral": (TIER_4,),
    "chat.postMessage": (POSTING, HUNDREDS),
    "chat.update": (TIER_3,),
    "conversations.history": (TIER_3,),
    "conversations.info": (TIER_3,),
    "conversations.open": (TIER_3,),
    "conversations.replies": (TIER_3,),
    "files.completeUploadExternal": (TIER_4,),
    "files.getUploadURLExternal": (TIER_4,),
    "files.info": (TIER_4,),
    "reactions.add": (TIER_3,),
    "reactions.remove": (TIER_2,),
    "team.info": (TIER_3,),
    "users.info": (TIER_4,),
}


class RateLimiter:
    """Counts calls. A refused call does not count."""

    def __init__(self, rates: Rates, clock: Callable[[], float] = time.monotonic) -> None:
        self._rates = rates
        self._clock = clock
        self._taken: dict[tuple[str, Rate, str], deque[float]] = defaultdict(deque)

    def take(self, method: str, channel: str) -> float:
        """Count a call of `method`, or give the seconds to wait before it may be made."""
        now = self._clock()
        windows: list[deque[float]] = []
        wait = 0.0
        for rate in self._rates.get(method, ()):
            window = self._taken[method, rate, channel if rate.per_channel else ""]
            while window and window[0] <= now - rate.seconds:
                window.popleft()
            if len(window) >= rate.calls:
                wait = max(wait, window[0] + rate.seconds - now)
            windows.append(window)
        if wait == 0:
            for window in windows:
                window.append(now)
        return wait


def json_length(value: Any) -> int:
    """The characters of a value in JSON without spaces."""
    return len(json.dumps(value, ensure_ascii=False, separators=(",", ":")))
