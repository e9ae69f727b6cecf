"""Schedules: written by compare-and-set, and each tick claimed by exactly one."""

from __future__ import annotations

from datetime import timedelta
from functools import partial

import pytest
from msgspec.structs import replace

from jobqueue_core.job import Idempotency, NewJob, Priority, new_job_id
from jobqueue_core.storage import Schedule, Storage, Tick
from jobqueue_core.testing.factories import schedule, tick
from jobqueue_core.testing.storage_suite.arrangement import HOUR, NASTY, NOON, SECOND, OpenStorage, StorageArrangement, at_once


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
        assert seen.next_run is not None
        due = tick(seen, due=seen.next_run)
        return due if storage.claim_tick(seen, due, next_run=seen.next_run + next_run) else None

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
        assert other.schedule(full.name) == replace(full, version=1)
        assert other.schedules() == [replace(full, version=1)]

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
        self.put(storage, schedule("paused", next_run=NOON - HOUR, enabled=False))
        self.put(storage, schedule("over", next_run=None))
        assert [one.name for one in storage.due_schedules(NOON, 10)] == ["c", "b", "a"]
        assert [one.name for one in storage.due_schedules(NOON, 2)] == ["c", "b"]
        assert storage.due_schedules(NOON, 10)[0] == self.stored(storage, "c")

    def test_a_claim_moves_the_schedule_and_keeps_the_tick(self, storage: Storage, other: Storage) -> None:
        seen = self.put(storage, schedule(next_run=NOON))
        due = self.claim(storage, seen)
        after = self.stored(other)
        assert (after.next_run, after.version > seen.version) == (NOON + HOUR, True)
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
        assert storage.claim_tick(seen, frozen, next_run=None)
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
        assert storage.claim_tick(seen, None, next_run=NOON)
        assert not storage.claim_tick(seen, None, next_run=NOON + HOUR)
        assert self.stored(storage).next_run == NOON
        assert storage.ticks("nightly", 10) == []

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
        other.mark_sent("nightly", NOON)
        other.mark_sent("nightly", NOON)
        other.mark_sent("never-seen", NOON)
        assert storage.unsent_ticks(NOON + 24 * HOUR, 10) == ticks[1:]
        assert [one.sent for one in storage.ticks("nightly", 10)] == [False, False, False, True]
