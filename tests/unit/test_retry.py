"""The retry policy: the formulas of the contract, and their bounds."""

from __future__ import annotations

import random
from datetime import timedelta
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobqueue_core.retry import Jitter, RetryPolicy

JITTERS = st.sampled_from(get_args(Jitter))
BASES = st.timedeltas(timedelta(0), timedelta(days=1))
LONGEST = st.timedeltas(timedelta(days=1), timedelta(days=365))


def lowest(low: float, _high: float) -> float:
    return low


def highest(_low: float, high: float) -> float:
    return high


def seconds(policy: RetryPolicy, retries: int, previous: float | None = None) -> tuple[float, float]:
    """The least and the most that the policy may wait, in seconds."""
    before = None if previous is None else timedelta(seconds=previous)
    least, most = (policy.delay(retries, before, uniform=bound).total_seconds() for bound in (lowest, highest))
    return least, most


@pytest.mark.parametrize(("retries", "expected"), [(0, 10), (1, 20), (2, 40), (8, 2560), (9, 3600), (500, 3600), (10**9, 3600)])
def test_the_delay_doubles_from_base_up_to_max(retries: int, expected: float) -> None:
    assert seconds(RetryPolicy(jitter="none"), retries) == (expected, expected)


@pytest.mark.parametrize(("retries", "expected"), [(0, (0, 10)), (2, (0, 40)), (20, (0, 3600))])
def test_full_jitter_draws_from_zero_to_the_delay(retries: int, expected: tuple[float, float]) -> None:
    assert seconds(RetryPolicy(jitter="full"), retries) == expected


@pytest.mark.parametrize(("retries", "expected"), [(0, (5, 10)), (2, (20, 40)), (20, (1800, 3600))])
def test_equal_jitter_draws_from_the_upper_half(retries: int, expected: tuple[float, float]) -> None:
    assert seconds(RetryPolicy(jitter="equal"), retries) == expected


@pytest.mark.parametrize(
    ("previous", "expected"), [(None, (10, 30)), (10, (10, 30)), (100, (10, 300)), (2000, (10, 3600)), (1, (10, 10)), (0, (10, 10))]
)
def test_decorrelated_jitter_draws_from_base_to_three_times_the_previous_delay(previous: float | None, expected: tuple[float, float]) -> None:
    assert seconds(RetryPolicy(jitter="decorrelated"), 7, previous) == expected


@given(jitter=JITTERS, base=BASES, longest=LONGEST, retries=st.integers(0, 10_000), previous=st.none() | BASES, seed=st.integers())
def test_no_delay_is_negative_or_beyond_max(
    *, jitter: Jitter, base: timedelta, longest: timedelta, retries: int, previous: timedelta | None, seed: int
) -> None:
    policy = RetryPolicy(base=base, max=longest, jitter=jitter)
    delay = policy.delay(retries, previous, uniform=random.Random(seed).uniform)
    assert timedelta(0) <= delay <= longest


@given(jitter=st.sampled_from(["none", "full", "equal"]), base=BASES, longest=LONGEST, retries=st.integers(0, 1000))
def test_the_most_it_may_wait_never_shrinks_with_another_retry(jitter: Jitter, base: timedelta, longest: timedelta, retries: int) -> None:
    policy = RetryPolicy(base=base, max=longest, jitter=jitter)
    assert policy.delay(retries, uniform=highest) <= policy.delay(retries + 1, uniform=highest)


def test_real_draws_differ_so_that_jobs_that_failed_together_are_spread() -> None:
    policy = RetryPolicy()
    assert len({policy.delay(5) for _ in range(20)}) > 1


def test_durations_may_be_text() -> None:
    assert RetryPolicy(base="1s", max="2m") == RetryPolicy(base=timedelta(seconds=1), max=timedelta(minutes=2))


def test_max_may_equal_base_and_not_be_below() -> None:
    assert RetryPolicy(base="1m", max="1m", jitter="none").delay(3) == timedelta(minutes=1)
    with pytest.raises(ValueError, match="is shorter than base"):
        RetryPolicy(base="1m", max="59s")


def test_an_unknown_jitter_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(ValueError, match="jitter must be one of full, equal, decorrelated, none, not 'some'"):
        RetryPolicy(jitter="some")  # type: ignore[arg-type]  # that is the point
