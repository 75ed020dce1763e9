"""What GitHub's answers mean to us, and how our writes keep its pace."""

from __future__ import annotations

import asyncio
import time
from json import JSONDecodeError

import pytest
import requests
from github import GithubException

from handlers.github.auth import WRITE_PAUSE, Pace
from handlers.github.failures import RATE_LIMIT_PAUSE, CallFailed, MintFailed, NoToken, explained
from tests.fakes import FakeClock


def answer(status: int, message: str = "", errors: object = None, **headers: str) -> CallFailed:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    error = GithubException(status, {"message": message, "errors": errors}, sent, None)
    return explained(error, as_app=False)


@pytest.mark.parametrize(
    "error", [requests.ConnectionError("gone"), requests.Timeout(), JSONDecodeError("cut", "{", 1)]
)
def test_no_answer_may_have_had_its_effect_and_is_worth_another_try(
    error: requests.RequestException | JSONDecodeError,
) -> None:
    failed = explained(error, as_app=False)
    assert (failed.status, failed.retryable, failed.limited) == (0, True, False)


def test_an_error_of_githubs_own_is_worth_another_try() -> None:
    assert answer(502).retryable


def test_a_limit_says_when_it_ends() -> None:
    assert answer(403, "You have exceeded a secondary rate limit", Retry_After="17").retry_after == 17
    spent = answer(
        403,
        "API rate limit exceeded",
        X_RateLimit_Remaining="0",
        X_RateLimit_Reset=str(int(time.time()) + 90),
    )
    assert 80 < spent.retry_after <= 90
    assert answer(429).retry_after == RATE_LIMIT_PAUSE
    assert all(failed.limited and failed.retryable for failed in (spent, answer(429)))


def test_a_missing_permission_is_named_and_not_tried_again() -> None:
    failed = answer(403, "Resource not accessible", X_Accepted_GitHub_Permissions="issues=write")
    assert not failed.retryable
    assert "issues=write" in failed.mend


def test_what_was_wrong_in_a_request_is_told() -> None:
    failed = answer(
        422, "Validation Failed", [{"message": "No commits"}, {"field": "head", "code": "invalid"}]
    )
    assert failed.errors == ("No commits", " head invalid")
    assert "No commits" in failed.what
    assert not failed.retryable


def test_a_token_that_ended_early_is_worth_another_try_and_a_wrong_key_is_not() -> None:
    assert answer(401, "Bad credentials").retryable
    wrong_key = explained(GithubException(401, {}, {}, None), as_app=True)
    assert isinstance(wrong_key, NoToken)
    assert "SANDPIPER_GITHUB_PRIVATE_KEY" in wrong_key.mend
    assert not wrong_key.retryable


@pytest.mark.parametrize("status", [401, 403, 404, 422])
def test_a_token_that_is_not_minted_says_what_to_do(status: int) -> None:
    failed = explained(MintFailed(status, {}, {}, None), as_app=False)
    assert isinstance(failed, NoToken)
    assert failed.mend


def test_a_secret_in_an_answer_does_not_get_into_the_error() -> None:
    assert "ghs_" not in str(answer(400, "bad token ghs_" + "a1" * 20))


# pace


async def test_writes_go_a_second_apart_in_the_order_they_came() -> None:
    clock = FakeClock()
    pace, went = Pace(clock), list[int]()

    async def write(number: int) -> None:
        await pace.turn()
        went.append(number)

    writes = [asyncio.create_task(write(number)) for number in range(3)]
    for seconds in range(3):
        await settled()
        assert went == list(range(seconds + 1))
        clock.advance(WRITE_PAUSE)
    await asyncio.gather(*writes)


async def test_while_github_limits_us_nobody_goes_and_each_hears_how_long() -> None:
    clock = FakeClock()
    pace = Pace(clock)
    pace.close(30)
    clock.advance(10)
    with pytest.raises(CallFailed) as limited:
        await pace.turn()
    assert limited.value.retry_after == pytest.approx(20)
    assert limited.value.retryable
    clock.advance(20)
    await pace.turn()


async def settled() -> None:
    for _ in range(10):
        await asyncio.sleep(0)
