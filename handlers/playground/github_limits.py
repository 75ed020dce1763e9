"""GitHub's rate limits, counted as documented, and enforced where the playground is told to.

Source: docs.github.com, "Rate limits for the REST API".
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from handlers.playground.github_errors import Refusal

_HOUR = 3600
_MINUTE = 60


@dataclass(frozen=True, slots=True)
class Limits:
    """What one installation may do. `status` is that of the secondary limits' answer: 403 or 429."""

    requests_per_hour: int = 5000
    points_per_minute: int = 900
    content_per_minute: int = 80
    content_per_hour: int = 500
    status: int = 403


@dataclass(slots=True)
class _Spent:
    requests: deque[float] = field(default_factory=deque)
    points: deque[float] = field(default_factory=deque)
    content: deque[float] = field(default_factory=deque)


class RateLimiter:
    """Counts requests per installation (or the App itself); with `limits` None it only counts."""

    def __init__(self, limits: Limits | None, clock: Callable[[], float]) -> None:
        self.limits = limits
        self._clock = clock
        self._spent: dict[str, _Spent] = {}

    def admit(self, who: str, method: str, creates_content: bool) -> None:
        """Count a request, or raise the Refusal that GitHub would give. A refused one is not counted."""
        now = self._clock()
        spent = self._spent.setdefault(who, _Spent())
        _forget(spent.requests, now - _HOUR)
        _forget(spent.points, now - _MINUTE)
        _forget(spent.content, now - _HOUR)
        cost = 1 if method in ("GET", "HEAD", "OPTIONS") else 5
        if self.limits is not None:
            self._check(self.limits, spent, who, cost, creates_content, now)
        spent.requests.append(now)
        spent.points.extend([now] * cost)
        if creates_content:
            spent.content.append(now)

    def _check(
        self, limits: Limits, spent: _Spent, who: str, cost: int, creates_content: bool, now: float
    ) -> None:
        if len(spent.requests) >= limits.requests_per_hour:
            raise Refusal(403, f"API rate limit exceeded for {who}.", headers=self.headers(who))
        too_many_points = len(spent.points) + cost > limits.points_per_minute
        if too_many_points:
            raise _secondary(limits, "", spent.points[0] + _MINUTE - now)
        if not creates_content:
            return
        blocked = " and have been temporarily blocked from content creation"
        last_minute = [at for at in spent.content if at > now - _MINUTE]
        if len(last_minute) >= limits.content_per_minute:
            raise _secondary(limits, blocked, last_minute[0] + _MINUTE - now)
        if len(spent.content) >= limits.content_per_hour:
            raise _secondary(limits, blocked, spent.content[0] + _HOUR - now)

    def headers(self, who: str) -> dict[str, str]:
        """The `X-RateLimit-…` headers of every answer."""
        state = self.state(who)
        return {f"X-RateLimit-{name.capitalize()}": str(value) for name, value in state.items()} | {
            "X-RateLimit-Resource": "core"
        }

    def state(self, who: str) -> dict[str, int]:
        spent = self._spent.get(who, _Spent())
        limit = (self.limits or Limits()).requests_per_hour
        begun = spent.requests[0] if spent.requests else self._clock()
        used = len(spent.requests)
        return {
            "limit": limit,
            "remaining": max(0, limit - used),
            "used": used,
            "reset": int(begun + _HOUR),
        }


def _forget(moments: deque[float], before: float) -> None:
    while moments and moments[0] <= before:
        moments.popleft()


def _secondary(limits: Limits, blocked: str, seconds: float) -> Refusal:
    return Refusal(
        limits.status,
        f"You have exceeded a secondary rate limit{blocked}. Please retry your request again later.",
        headers={"Retry-After": str(max(1, round(seconds)))},
    )
