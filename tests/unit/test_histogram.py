"""Percentiles of durations are right within a few percent, whatever their size."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobqueue_core.histogram import Histogram

durations = st.floats(0.02, 1e9)


def counted(values: list[float]) -> Histogram:
    histogram = Histogram()
    for value in values:
        histogram.add(value)
    return histogram


@given(st.lists(durations, min_size=1, max_size=50), st.sampled_from([0.0, 0.5, 0.95, 0.99, 1.0]))
def test_a_percentile_is_within_five_percent_of_the_true_one(values: list[float], share: float) -> None:
    true = sorted(values)[max(1, math.ceil(share * len(values))) - 1]
    assert counted(values).percentile(share) == pytest.approx(true, rel=0.055)


@given(st.lists(durations, max_size=30), st.lists(durations, max_size=30))
def test_merging_is_counting_together(some: list[float], others: list[float]) -> None:
    merged = counted(some)
    merged.merge([counted(others)])
    together = counted(some + others)
    assert (merged.buckets, merged.count) == (together.buckets, together.count)
    assert merged.total_ms == pytest.approx(together.total_ms)


def test_nothing_counted_has_no_mean_and_no_percentile() -> None:
    assert (Histogram().mean_ms, Histogram().percentile(0.5), Histogram().count) == (None, None, 0)


@pytest.mark.parametrize("duration", [0.0, -1.0, 1e-9, 0.01])
def test_what_is_too_short_to_measure_falls_into_the_first_bucket(duration: float) -> None:
    assert counted([duration]).buckets == {0: 1}


@pytest.mark.parametrize("duration", [1e9, 1e10, 1e300, math.inf])
def test_what_is_too_long_to_be_true_falls_into_the_last_bucket(duration: float) -> None:
    assert Histogram.bucket(duration) == Histogram.bucket(1e9) < 300
    assert counted([duration]).mean_ms == 1e9


@given(st.floats())
def test_every_number_has_a_bucket_that_a_small_integer_holds_and_a_mean(duration: float) -> None:
    assert 0 <= Histogram.bucket(duration) <= 32_767
    assert 0 <= (counted([duration]).mean_ms or 0) <= 1e9


@pytest.mark.parametrize("duration", [math.nan, -math.inf, -1e300])
def test_what_is_no_duration_falls_into_the_first_bucket_and_adds_nothing(duration: float) -> None:
    assert (counted([duration]).buckets, counted([duration]).total_ms) == ({0: 1}, 0.0)


def test_it_can_be_stored_by_its_buckets_and_total() -> None:
    original = counted([1.0, 2.0, 3000.0])
    copy = Histogram(original.buckets, total_ms=original.total_ms)
    assert (copy.count, copy.mean_ms, copy.percentile(0.5)) == (3, original.mean_ms, original.percentile(0.5))
    copy.add(5.0)
    assert original.count == 3, "the copy has buckets of its own"


@given(st.lists(st.one_of(st.just(0.0), durations), max_size=50), st.lists(durations, max_size=10).map(sorted))
def test_what_took_no_longer_is_counted_right_but_for_five_percent_round_the_bound(values: list[float], bounds: list[float]) -> None:
    for bound, found in zip(bounds, counted(values).up_to(bounds), strict=True):
        assert sum(value <= bound / 1.055 for value in values) <= found <= sum(value <= bound * 1.055 for value in values)
