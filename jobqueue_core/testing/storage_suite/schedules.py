"""Schedules: written by compare-and-set, and each tick claimed by exactly one."""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import timedelta
from functools import partial
from typing import TypeVar

import pytest
from msgspec.structs import replace

from jobqueue_core.job import Idempotency, NewJob, Priority, new_job_id
from jobqueue_core.storage import Claim, Schedule, Storage, Tick
from jobqueue_core.testing.factories import claim, schedule, tick
from jobqueue_core.testing.storage_suite.arrangement import HOUR, NASTY, NOON, SECOND, OpenStorage, StorageArrangement, at_once

T = TypeVar("T")


class ScheduleContract(StorageArrangement):
    """``Schedules``."""

    def put(self, storage: Storage, new: Schedule) -> Schedule:
        """Store a new schedule; the schedule as stored."""
        assert storage.put_schedule(new, expected_version=None)
        return self.stored(storage, new.name)

    def stored(self, storage: Storage, name: str = "nightly") -> Schedule:
        """The schedule as it is now."""
        found = storage.schedule(name)
        assert found is not None
        return found

    def claim(self, storage: Storage, seen: Schedule, *, next_run: timedelta = HOUR) -> Tick | None:
        """Claim the tick that is due and move on by *next_run*; the tick, or None when someone else was first."""
        wanted = claim(seen, next_run=next_run)
        return wanted.tick if storage.claim_ticks([wanted]) == [True] else None

    def put_many(self, storage: Storage, count: int) -> list[Schedule]:
        """Store *count* schedules that are due; as stored, by name."""
        for number in range(count):
            assert storage.put_schedule(schedule(f"number-{number:04}", next_run=NOON), expected_version=None)
        return storage.schedules()

    # Writing ---------------------------------------------------------------------------------------------------------------------------

    def test_a_schedule_comes_back_as_it_was(self, storage: Storage, other: Storage) -> None:
        full = schedule(
            "nightly.report-2",
            expression="30 0 3 * * MON-FRI",
            timezone="Europe/Zurich",
            type="report.make",
            payload_json=b'{"z": 1,"a":123456789012345678901234567890,"nul":"\\u0000"}',
            queue="reports",
            priority="low",
            max_retries=0,
            timeout=timedelta(milliseconds=1500),
            enabled=False,
            paused=True,
            misfire="all",
            misfire_limit=7,
            overlap="skip",
            jitter=timedelta(seconds=5),
            start=NOON - HOUR,
            end=NOON + HOUR,
            source="config",
            next_run=NOON + timedelta(microseconds=1),
            last_run=NOON - HOUR,
            last_job_id=new_job_id("reports"),
            version=99,
        )
        assert storage.put_schedule(full, expected_version=None)
        assert other.schedule(full.name) == full
        assert other.schedules() == [full]

    def test_unset_fields_of_a_schedule_stay_unset(self, storage: Storage) -> None:
        assert self.put(storage, schedule()) == schedule(version=1)

    @pytest.mark.parametrize("text", [text for text in NASTY if text], ids=ascii)
    def test_no_payload_text_is_changed(self, storage: Storage, text: str) -> None:
        assert self.put(storage, schedule(payload_json=text.encode())).payload_json == text.encode()

    def test_schedules_are_listed_by_name(self, storage: Storage) -> None:
        for name in ("b", "c", "a"):
            self.put(storage, schedule(name))
        assert [one.name for one in storage.schedules()] == ["a", "b", "c"]
        assert storage.schedule("d") is None

    def test_a_schedule_is_made_only_when_there_is_none(self, storage: Storage) -> None:
        self.put(storage, schedule())
        assert not storage.put_schedule(schedule(expression="@hourly"), expected_version=None)
        assert self.stored(storage) == schedule(version=1)

    def test_an_edit_must_have_seen_the_latest_version(self, storage: Storage, other: Storage) -> None:
        self.put(storage, schedule())
        assert other.put_schedule(schedule(expression="@hourly"), expected_version=1)
        assert self.stored(storage) == schedule(expression="@hourly", version=2)
        for stale in (1, 3, 0):
            assert not storage.put_schedule(schedule(expression="@daily"), expected_version=stale)
        assert self.stored(storage) == schedule(expression="@hourly", version=2)

    def test_what_does_not_exist_cannot_be_edited(self, storage: Storage) -> None:
        assert not storage.put_schedule(schedule(), expected_version=1)
        assert storage.schedules() == []

    def test_of_many_edits_of_one_version_one_is_written(self, storage: Storage, other: Storage) -> None:
        self.put(storage, schedule())
        edits = [partial(one.put_schedule, schedule(), expected_version=1) for one in (storage, other) * 3]
        assert sorted(at_once(edits)) == [False] * 5 + [True]
        assert self.stored(storage).version == 2

    def test_a_schedule_is_deleted_once(self, storage: Storage) -> None:
        seen = self.put(storage, schedule(next_run=NOON))
        self.put(storage, schedule("other"))
        assert storage.delete_schedule("nightly")
        assert not storage.delete_schedule("nightly")
        assert [one.name for one in storage.schedules()] == ["other"]
        assert storage.due_schedules(NOON, 10) == []
        assert self.claim(storage, seen) is None

    def test_a_deleted_name_may_be_used_again(self, storage: Storage) -> None:
        self.put(storage, schedule())
        storage.delete_schedule("nightly")
        assert self.put(storage, schedule(expression="@hourly")).expression == "@hourly"

    def test_schedules_are_there_after_closing_and_opening(self, open_storage: OpenStorage) -> None:
        first = open_storage()
        stored = self.put(first, schedule(next_run=NOON))
        first.close()
        second = open_storage()
        assert second.schedules() == [stored]
        second.close()

    # Ticks -----------------------------------------------------------------------------------------------------------------------------

    def test_due_schedules_are_found_longest_due_first(self, storage: Storage) -> None:
        for name, seconds in (("b", -1), ("a", 0), ("c", -5), ("later", 1)):
            self.put(storage, schedule(name, next_run=NOON + seconds * SECOND))
        self.put(storage, schedule("disabled", next_run=NOON - HOUR, enabled=False))
        self.put(storage, schedule("paused", next_run=NOON - HOUR, paused=True))
        self.put(storage, schedule("both", next_run=NOON - HOUR, enabled=False, paused=True))
        self.put(storage, schedule("over", next_run=None))
        assert [one.name for one in storage.due_schedules(NOON, 10)] == ["c", "b", "a"]
        assert [one.name for one in storage.due_schedules(NOON, 2)] == ["c", "b"]
        assert storage.due_schedules(NOON, 10)[0] == self.stored(storage, "c")

    def test_a_schedule_is_due_again_when_it_is_paused_no_longer_and_is_paused_as_long_as_nobody_changes_that(
        self, storage: Storage, other: Storage
    ) -> None:
        paused = self.put(storage, schedule(next_run=NOON, paused=True))
        assert storage.put_schedule(replace(paused, expression="@hourly"), expected_version=1)
        edited = self.stored(other)
        assert edited == replace(paused, expression="@hourly", version=2)
        assert self.claim(other, edited) is not None, "it can be run by hand"
        moved = self.stored(storage)
        assert (moved.paused, storage.due_schedules(NOON + HOUR, 10)) == (True, [])
        assert storage.put_schedule(replace(moved, paused=False), expected_version=3)
        assert other.due_schedules(NOON + HOUR, 10) == [replace(moved, paused=False, version=4)]

    def test_a_claim_moves_the_schedule_and_keeps_the_tick(self, storage: Storage, other: Storage) -> None:
        seen = self.put(storage, schedule(next_run=NOON))
        due = self.claim(storage, seen)
        after = self.stored(other)
        assert due is not None
        assert after == replace(seen, next_run=NOON + HOUR, last_run=NOON, last_job_id=due.job.id, version=seen.version + 1)
        assert other.ticks("nightly", 10) == [due]
        assert other.due_schedules(NOON, 10) == []

    def test_the_job_of_a_tick_comes_back_as_it_was_frozen(self, storage: Storage) -> None:
        seen = self.put(storage, schedule(next_run=NOON))
        job = NewJob(
            id=new_job_id("reports"),
            type="report.make",
            payload_json=b'{"z": 1,"a":123456789012345678901234567890,"nul":"\\u0000"}',
            queue="reports",
            priority=Priority.CRITICAL,
            scheduled_at=NOON,
            expires_in=timedelta(milliseconds=1500),
            max_retries=0,
            timeout=timedelta(hours=2),
            unique_key="one\u0000",
            unique_for=timedelta(minutes=1),
            metadata={"jobqueue.schedule": "nightly", "nasty": "\u0000😀"},
            headers={"traceparent": "00-1"},
            idempotency=Idempotency(key="k", fingerprint="f"),
        )
        frozen = Tick(schedule="nightly", due=NOON, job=job, claimed_at=NOON + timedelta(microseconds=7))
        assert storage.claim_ticks([Claim(schedule=seen, tick=frozen, next_run=None)]) == [True]
        assert storage.ticks("nightly", 10) == [frozen]
        assert self.stored(storage).next_run is None

    def test_exactly_one_of_many_claims_a_tick(self, storage: Storage, other: Storage) -> None:
        seen = self.put(storage, schedule(next_run=NOON))
        claims = at_once([partial(self.claim, one, seen) for one in (storage, other) * 4])
        (winner,) = [one for one in claims if one is not None]
        assert storage.ticks("nightly", 10) == [winner]

    def test_a_claim_by_a_former_view_writes_nothing(self, storage: Storage) -> None:
        seen = self.put(storage, schedule(next_run=NOON))
        assert storage.put_schedule(replace(seen, expression="@hourly"), expected_version=seen.version)
        edited = self.stored(storage)
        assert self.claim(storage, seen) is None
        assert self.claim(storage, replace(edited, next_run=NOON - HOUR)) is None
        assert self.claim(storage, replace(edited, version=edited.version + 1)) is None
        assert self.stored(storage) == edited
        assert storage.ticks("nightly", 10) == []
        assert self.claim(storage, edited) is not None

    def test_an_edit_by_a_view_from_before_a_claim_is_refused(self, storage: Storage) -> None:
        seen = self.put(storage, schedule(next_run=NOON))
        assert self.claim(storage, seen) is not None
        assert not storage.put_schedule(replace(seen, enabled=False), expected_version=seen.version)
        assert self.stored(storage).next_run == NOON + HOUR

    def test_a_tick_that_was_claimed_before_is_not_claimed_again(self, storage: Storage) -> None:
        seen = self.put(storage, schedule(next_run=NOON))
        claimed = self.claim(storage, seen)
        moved = self.stored(storage)
        assert storage.put_schedule(replace(moved, next_run=NOON), expected_version=moved.version)
        turned_back = self.stored(storage)
        assert self.claim(storage, turned_back) is None
        assert self.stored(storage) == turned_back
        assert storage.ticks("nightly", 10) == [claimed]

    def test_a_schedule_can_move_on_without_a_tick(self, storage: Storage) -> None:
        seen = self.put(storage, schedule(next_run=None))
        assert storage.claim_ticks([Claim(schedule=seen, tick=None, next_run=NOON)]) == [True]
        assert storage.claim_ticks([Claim(schedule=seen, tick=None, next_run=NOON + HOUR)]) == [False]
        assert self.stored(storage) == replace(seen, next_run=NOON, version=2)
        assert storage.ticks("nightly", 10) == []

    def test_what_ran_last_is_kept_when_a_schedule_moves_on_without_a_tick(self, storage: Storage) -> None:
        due = self.claim(storage, self.put(storage, schedule(next_run=NOON)))
        seen = self.stored(storage)
        assert storage.claim_ticks([Claim(schedule=seen, tick=None, next_run=None)]) == [True]
        assert due is not None
        assert self.stored(storage) == replace(seen, next_run=None, last_run=NOON, last_job_id=due.job.id, version=3)
        assert storage.ticks("nightly", 10) == [due]

    def test_a_tick_between_two_can_be_claimed_while_the_schedule_stays_due_as_it_was(self, storage: Storage) -> None:
        seen = self.put(storage, schedule(next_run=NOON + HOUR))
        now = tick(seen, due=NOON)
        assert storage.claim_ticks([Claim(schedule=seen, tick=now, next_run=seen.next_run)]) == [True]
        assert self.stored(storage) == replace(seen, last_run=NOON, last_job_id=now.job.id, version=2)
        assert self.claim(storage, self.stored(storage)) is not None
        assert [one.due for one in storage.ticks("nightly", 10)] == [NOON + HOUR, NOON]

    # Many at once ----------------------------------------------------------------------------------------------------------------------

    def test_of_a_batch_exactly_those_claims_change_anything_that_nobody_was_before(self, storage: Storage, other: Storage) -> None:
        wins, moves = (self.put(storage, schedule(name, next_run=NOON)) for name in ("wins", "moves"))
        edited, claimed, deleted = (self.put(storage, schedule(name, next_run=NOON)) for name in ("edited", "claimed", "deleted"))
        assert storage.put_schedule(replace(edited, expression="@hourly"), expected_version=1)
        assert self.claim(storage, claimed) is not None
        assert storage.put_schedule(replace(claimed, next_run=NOON), expected_version=2)
        turned_back = self.stored(storage, "claimed")
        assert storage.delete_schedule("deleted")
        before = {one.name: (one, storage.ticks(one.name, 10)) for one in storage.schedules()}

        batch = [claim(edited), claim(wins), claim(deleted), Claim(schedule=moves, tick=None, next_run=None), claim(turned_back)]
        assert other.claim_ticks(batch) == [False, True, False, True, False]

        job = batch[1].tick
        assert job is not None
        won = replace(wins, next_run=NOON + HOUR, last_run=NOON, last_job_id=job.job.id, version=2)
        before |= {"wins": (won, [job]), "moves": (replace(moves, next_run=None, version=2), [])}
        assert {one.name: (one, storage.ticks(one.name, 10)) for one in storage.schedules()} == before
        assert storage.ticks("deleted", 10) == []

    def test_claims_without_any_tick_and_those_of_schedules_that_are_never_due_go_together(self, storage: Storage) -> None:
        idle, ends, goes_on = (self.put(storage, schedule(name, next_run=when)) for name, when in (("a", None), ("b", NOON), ("c", NOON)))
        batch = [Claim(schedule=one, tick=None, next_run=when) for one, when in ((idle, NOON), (ends, None), (goes_on, NOON + HOUR))]
        assert storage.claim_ticks(batch) == [True] * 3
        assert [one.next_run for one in storage.schedules()] == [NOON, None, NOON + HOUR]

    def test_an_empty_batch_is_nothing(self, storage: Storage) -> None:
        assert storage.claim_ticks([]) == []
        storage.mark_sent([])

    def test_a_thousand_schedules_are_claimed_in_one_call(self, storage: Storage, other: Storage) -> None:
        batch = [claim(one) for one in self.put_many(storage, 1_000)]
        assert storage.claim_ticks(batch) == [True] * 1_000
        assert {one.next_run for one in other.schedules()} == {NOON + HOUR}
        assert sorted(one.schedule for one in other.unsent_ticks(NOON + HOUR, 2_000)) == [one.schedule.name for one in batch]
        storage.mark_sent([(one.schedule.name, NOON) for one in batch])
        assert other.unsent_ticks(NOON + HOUR, 2_000) == []

    def test_many_who_claim_the_same_in_different_orders_claim_each_tick_once(self, storage: Storage, other: Storage) -> None:
        seen = self.put_many(storage, 60)
        everybody = (storage, other) * 4

        def claim_some(number: int) -> list[Tick]:
            won = []
            # In steps that overlap with those of the others, until nothing is due.
            while due := everybody[number].due_schedules(NOON, 100):
                batch = [claim(one) for one in shuffled(due, number)[:20]]
                answers = everybody[number].claim_ticks(batch)
                won += [one.tick for one, is_won in zip(batch, answers, strict=True) if is_won and one.tick is not None]
            return won

        claimed = [one for some in at_once([partial(claim_some, number) for number in range(len(everybody))]) for one in some]
        assert sorted(one.schedule for one in claimed) == [one.name for one in seen]
        stored = [one for schedule in seen for one in storage.ticks(schedule.name, 10)]
        assert sorted(one.job.id for one in stored) == sorted(one.job.id for one in claimed)
        assert {(one.next_run, one.version) for one in storage.schedules()} == {(NOON + HOUR, 2)}

    def test_ticks_are_listed_newest_first(self, storage: Storage) -> None:
        self.put(storage, schedule(next_run=NOON))
        self.put(storage, schedule("other", next_run=NOON))
        for _ in range(5):
            assert self.claim(storage, self.stored(storage)) is not None
        assert [one.due for one in storage.ticks("nightly", 3)] == [NOON + hours * HOUR for hours in (4, 3, 2)]
        assert len(storage.ticks("nightly", 10)) == 5
        assert storage.ticks("other", 10) == storage.ticks("never-seen", 10) == []

    def test_unsent_ticks_are_found_until_they_are_marked(self, storage: Storage, other: Storage) -> None:
        self.put(storage, schedule(next_run=NOON))
        ticks = [self.claim(storage, self.stored(storage)) for _ in range(4)]
        assert other.unsent_ticks(NOON + 2 * HOUR, 10) == ticks[:2]
        assert other.unsent_ticks(NOON + 24 * HOUR, 3) == ticks[:3]
        other.mark_sent([("nightly", NOON)])
        other.mark_sent([("never-seen", NOON), ("nightly", NOON), ("nightly", NOON + 24 * HOUR)])
        assert storage.unsent_ticks(NOON + 24 * HOUR, 10) == ticks[1:]
        assert [one.sent for one in storage.ticks("nightly", 10)] == [False, False, False, True]
        other.mark_sent([("nightly", NOON + 3 * HOUR), ("nightly", NOON + HOUR)])
        assert storage.unsent_ticks(NOON + 24 * HOUR, 10) == ticks[2:3]

    def test_ticks_that_many_mark_at_once_are_marked(self, storage: Storage, other: Storage) -> None:
        sent = [(one.name, NOON) for one in self.put_many(storage, 50)]
        assert all(storage.claim_ticks([claim(one) for one in storage.schedules()]))
        at_once([partial(one.mark_sent, shuffled(sent, number)) for number, one in enumerate((storage, other) * 3)])
        assert storage.unsent_ticks(NOON + HOUR, 100) == []

    def test_the_ticks_of_a_deleted_schedule_stay_until_they_are_sent(self, storage: Storage, other: Storage) -> None:
        due = self.claim(storage, self.put(storage, schedule(next_run=NOON)))
        assert storage.delete_schedule("nightly")
        assert other.unsent_ticks(NOON + HOUR, 10) == [due]
        other.mark_sent([("nightly", NOON)])
        assert storage.unsent_ticks(NOON + HOUR, 10) == []


def shuffled(items: Sequence[T], seed: int) -> list[T]:
    """*items* in an order that depends on *seed*."""
    return random.Random(seed).sample(items, k=len(items))  # noqa: S311 - the order is no secret
