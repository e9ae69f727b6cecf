"""Dead letters: each kept once until someone retries or discards it."""

from __future__ import annotations

import uuid
from contextlib import suppress
from datetime import timedelta
from functools import partial
from typing import Any

import pytest

from jobqueue_core.attempt import MAX_TRACEBACK, DeadLetter, DeadLetterState
from jobqueue_core.errors import InvalidJob
from jobqueue_core.job import DeadReason, Priority
from jobqueue_core.storage import DeadLetterFilter, Storage
from jobqueue_core.testing.factories import dead_letter, tampered
from jobqueue_core.testing.storage_suite.arrangement import HOUR, NASTY, NOON, SECOND, StorageArrangement, at_once

_S = DeadLetterState


class DeadLetterContract(StorageArrangement):
    """``DeadLetters``."""

    def all_letters(self, storage: Storage, limit: int = 3, **wanted: Any) -> list[DeadLetter]:
        """All pages of a listing."""
        found: list[DeadLetter] = []
        cursor = None
        while True:
            page = storage.dead_letters(DeadLetterFilter(**wanted), cursor=cursor, offset=0, limit=limit)
            assert len(page.dead_letters) <= limit
            found += page.dead_letters
            if page.next is None:
                return found
            cursor = page.next

    def bury(self, storage: Storage, *letters: DeadLetter) -> list[DeadLetter]:
        """Store dead letters."""
        storage.record_dead_letters(letters)
        return list(letters)

    def one(self, storage: Storage, **fields: Any) -> DeadLetter:
        """Store one dead letter."""
        return self.bury(storage, dead_letter(**{"died_at": NOON, **fields}))[0]

    def latest(self, storage: Storage, letter: DeadLetter) -> DeadLetter:
        """The dead letter as it is now."""
        found = storage.dead_letter(letter.job.id)
        assert found is not None
        return found

    def state(self, storage: Storage, letter: DeadLetter) -> DeadLetterState:
        """What has become of a dead letter."""
        return self.latest(storage, letter).state

    def begin(self, storage: Storage, letter: DeadLetter, *, seconds: int = 1) -> bool:
        """Begin a retry that many seconds after noon."""
        return storage.begin_requeues([(letter.job.id, letter.job.deaths)], now=NOON + seconds * SECOND)[0]

    def finish(self, storage: Storage, letter: DeadLetter, *, requeued: bool, seconds: int = 2) -> None:
        """Finish it that many seconds after noon."""
        storage.finish_requeues([(letter.job.id, letter.job.deaths)], now=NOON + seconds * SECOND, requeued=requeued)

    # Storing and finding ---------------------------------------------------------------------------------------------------------------

    def test_a_dead_letter_comes_back_as_it_was(self, storage: Storage, other: Storage) -> None:
        letter = dead_letter(
            died_at=NOON + timedelta(microseconds=123_456),
            error="ValueError: 7",
            traceback='Traceback (most recent call last):\n  File "a.py", line 1, in f\nValueError: 7\n',
            type="email.send:v2",
            queue="mail",
            priority=Priority.LOW,
            payload_json=b'{"z": 1,"a":  1.10,"big":123456789012345678901234567890,"nul":"\\u0000","raw":"\xf0\x9f\x98\x80","z":2}',
            dead_reason=DeadReason.DISCARDED,
            scheduled_at=NOON - HOUR,
            timeout=timedelta(milliseconds=1500),
            retry_delay=timedelta(seconds=3),
            unique_key="welcome:42",
            unique_for=timedelta(minutes=5),
            metadata={"city": "zürich"},
            headers={"traceparent": "00-1"},
            deaths=2,
            crashes=1,
        )
        self.bury(storage, letter)
        assert other.dead_letter(letter.job.id) == letter
        assert self.all_letters(other) == [letter]

    def test_an_undecodable_entry_keeps_its_bytes(self, storage: Storage) -> None:
        whole = dead_letter(died_at=NOON, dead_reason=DeadReason.UNDECODABLE, payload_json=b"")
        letter = DeadLetter(job=whole.job, died_at=NOON, error="not a job record", raw=bytes(range(256)))
        self.bury(storage, letter)
        assert self.latest(storage, letter) == letter

    @pytest.mark.parametrize("text", NASTY, ids=ascii)
    def test_no_text_of_a_dead_letter_is_refused_or_changed(self, storage: Storage, text: str) -> None:
        letter = self.one(storage, error=text, traceback=text * 3, metadata={"key": text}, unique_key=text)
        assert self.latest(storage, letter) == letter

    def test_long_tracebacks_and_big_payloads_are_kept_whole(self, storage: Storage) -> None:
        payload = b'"' + b"\\u0000" * ((1 << 20) // 6) + b'"'
        letter = self.one(storage, traceback="😀\n" * (MAX_TRACEBACK // 2), error="x" * 2000, payload_json=payload)
        assert self.latest(storage, letter) == letter

    @pytest.mark.parametrize("payload", [b"", b"null", b" {} ", b"[1e400]", b'{"a":1,"a":2}', b'"\\ud800"', b"\xff not json"], ids=repr)
    def test_a_payload_is_kept_byte_for_byte(self, storage: Storage, payload: bytes) -> None:
        letter = self.one(storage, payload_json=payload)
        assert self.latest(storage, letter).job.payload_json == payload

    def test_a_death_that_is_known_changes_nothing(self, storage: Storage, other: Storage) -> None:
        letter, late = self.one(storage), dead_letter(died_at=NOON + SECOND)
        self.bury(other, letter, late, late)
        assert self.all_letters(storage) == [late, letter]
        assert self.begin(storage, letter)
        self.finish(storage, letter, requeued=True)
        assert storage.discard(late.job.id, 1)
        self.bury(storage, letter, late)
        assert (self.state(storage, letter), self.state(storage, late)) == (_S.REQUEUED, _S.DISCARDED)

    def test_two_recorders_with_one_batch_store_each_death_once(self, storage: Storage, other: Storage) -> None:
        letters = [dead_letter(died_at=NOON + number * SECOND) for number in range(50)]
        at_once([partial(one.record_dead_letters, letters) for one in (storage, other, storage)])
        assert storage.count_dead_letters(DeadLetterFilter(state=None)) == 50

    def test_the_latest_death_of_a_job_stands_for_it(self, storage: Storage) -> None:
        job_id = str(uuid.uuid4())
        deaths = [dead_letter(id=job_id, deaths=death, died_at=NOON + death * SECOND) for death in (1, 3, 2)]
        self.bury(storage, *deaths)
        assert storage.dead_letter(job_id) == deaths[1]
        assert storage.dead_letter(str(uuid.uuid4())) is None
        assert [one.job.deaths for one in self.all_letters(storage)] == [3, 2, 1]

    def test_a_walk_goes_from_the_latest_death_and_is_not_disturbed_by_new_ones(self, storage: Storage, other: Storage) -> None:
        letters = self.bury(storage, *(dead_letter(died_at=NOON - (number // 3) * SECOND) for number in range(20)))
        seen: list[DeadLetter] = []
        cursor = None
        while True:
            page = storage.dead_letters(DeadLetterFilter(), cursor=cursor, offset=0, limit=4)
            seen += page.dead_letters
            if (cursor := page.next) is None:
                break
            self.bury(other, dead_letter(died_at=NOON + HOUR))
        assert [one.died_at for one in seen] == sorted((one.died_at for one in seen), reverse=True)
        assert len({one.job.id for one in seen}) == len(seen)
        assert {one.job.id for one in letters} == {one.job.id for one in seen}

    def test_an_offset_skips_dead_letters(self, storage: Storage) -> None:
        letters = self.bury(storage, *(dead_letter(died_at=NOON - number * SECOND) for number in range(10)))
        page = storage.dead_letters(DeadLetterFilter(), cursor=None, offset=7, limit=2)
        assert list(page.dead_letters) == letters[7:9]
        assert storage.dead_letters(DeadLetterFilter(), cursor=None, offset=10, limit=2).dead_letters == ()

    def test_a_cursor_of_dead_letters_that_was_tampered_with_is_refused_or_read_and_breaks_nothing(self, storage: Storage) -> None:
        self.bury(storage, *(dead_letter(died_at=NOON) for _ in range(5)))
        cursor = storage.dead_letters(DeadLetterFilter(), cursor=None, offset=0, limit=2).next
        assert cursor is not None
        for forged in tampered(cursor):
            with suppress(InvalidJob):
                storage.dead_letters(DeadLetterFilter(), cursor=forged, offset=0, limit=2)

    @pytest.mark.parametrize("cursor", ["nonsense", "~", "a~b~c", "~~~~~", "\u0000", "ö"])
    def test_a_cursor_that_no_page_of_dead_letters_gave_is_refused(self, storage: Storage, cursor: str) -> None:
        self.one(storage)
        with pytest.raises(InvalidJob) as caught:
            storage.dead_letters(DeadLetterFilter(), cursor=cursor, offset=0, limit=10)
        assert caught.value.field == "cursor"

    def test_listings_and_counts_can_be_narrowed(self, storage: Storage) -> None:
        letters = self.bury(
            storage,
            *(
                dead_letter(type=f"type.{number % 2}", queue=f"queue-{number % 3}", error=f"{'AB'[number // 6]}: no", died_at=NOON - number * SECOND)
                for number in range(12)
            ),
        )
        cases: list[tuple[dict[str, Any], list[DeadLetter]]] = [
            ({}, letters),
            ({"type": "type.1"}, letters[1::2]),
            ({"queue": "queue-2"}, letters[2::3]),
            ({"type": "type.1", "queue": "queue-2"}, letters[5::6]),
            ({"fingerprint": letters[0].fingerprint}, letters[0:6:2]),
            ({"died_before": NOON - 4 * SECOND}, letters[4:]),
            ({"died_after": NOON - 3.5 * SECOND}, letters[:4]),
            ({"died_after": NOON - 5.5 * SECOND, "died_before": NOON - 2 * SECOND}, letters[2:6]),
            ({"state": _S.DISCARDED}, []),
            ({"type": "no.such"}, []),
        ]
        for wanted, expected in cases:
            assert self.all_letters(storage, **wanted) == expected, wanted
            assert storage.count_dead_letters(DeadLetterFilter(**wanted)) == len(expected), wanted

    def test_open_ones_are_listed_unless_another_state_is_wanted(self, storage: Storage) -> None:
        kept, requeueing, requeued, discarded = (self.one(storage, died_at=NOON - number * SECOND) for number in range(4))
        assert self.begin(storage, requeueing)
        assert self.begin(storage, requeued)
        self.finish(storage, requeued, requeued=True)
        assert storage.discard(discarded.job.id, 1)
        assert self.all_letters(storage) == [kept]
        for state, letter in ((_S.OPEN, kept), (_S.REQUEUEING, requeueing), (_S.REQUEUED, requeued), (_S.DISCARDED, discarded)):
            assert [(one.job.id, one.state) for one in self.all_letters(storage, state=state)] == [(letter.job.id, state)]
            assert storage.count_dead_letters(DeadLetterFilter(state=state)) == 1
        assert len(self.all_letters(storage, state=None)) == 4

    def test_groups_show_what_went_wrong_most(self, storage: Storage) -> None:
        often = self.bury(storage, *(dead_letter(error=f"KeyError: {number}", died_at=NOON + number * SECOND) for number in range(5)))
        twice = self.bury(storage, *(dead_letter(type="other.type", error="OSError", died_at=NOON) for _ in range(2)))
        self.bury(storage, dead_letter(error="TypeError", died_at=NOON))
        storage.discard(often[0].job.id, 1)
        first, second, third = storage.dead_letter_groups(DeadLetterFilter(), limit=10)
        assert (first.fingerprint, first.type, first.count) == (often[0].fingerprint, "test.job", 4)
        assert (first.first_died_at, first.last_died_at) == (NOON + SECOND, NOON + 4 * SECOND)
        assert first.example_job_id in {one.job.id for one in often[1:]}
        assert first.example_error.startswith("KeyError: ")
        assert (second.fingerprint, second.type, second.count) == (twice[0].fingerprint, "other.type", 2)
        assert third.count == 1
        assert storage.dead_letter_groups(DeadLetterFilter(), limit=1) == [first]
        assert storage.dead_letter_groups(DeadLetterFilter(type="other.type"), limit=10) == [second]
        assert storage.dead_letter_groups(DeadLetterFilter(type="no.such"), limit=10) == []

    def test_the_largest_group_comes_first(self, storage: Storage) -> None:
        sizes = [2, 5, 1, 4, 3, 6]
        self.bury(storage, *(dead_letter(error=f"Error{'ABCDEF'[kind]}", died_at=NOON) for kind, size in enumerate(sizes) for _ in range(size)))
        assert [one.count for one in storage.dead_letter_groups(DeadLetterFilter(), limit=5)] == [6, 5, 4, 3, 2]

    # Retrying --------------------------------------------------------------------------------------------------------------------------

    def test_a_retry_goes_from_open_over_requeueing_to_requeued(self, storage: Storage, other: Storage) -> None:
        letter = self.one(storage)
        assert self.begin(storage, letter)
        assert self.state(other, letter) is _S.REQUEUEING
        self.finish(other, letter, requeued=True)
        requeued = self.latest(storage, letter)
        assert (requeued.state, requeued.requeued_at, requeued.requeue_count) == (_S.REQUEUED, NOON + 2 * SECOND, 1)
        assert requeued.job == letter.job

    def test_a_retry_is_begun_once(self, storage: Storage, other: Storage) -> None:
        letter = self.one(storage)
        assert sorted(at_once([partial(self.begin, one, letter) for one in (storage, other) * 4])) == [False] * 7 + [True]
        self.finish(storage, letter, requeued=True)
        assert not self.begin(storage, letter)

    def test_many_retries_are_begun_at_once_and_answered_in_order(self, storage: Storage, other: Storage) -> None:
        letters = [self.one(storage, died_at=NOON - number * SECOND) for number in range(5)]
        assert self.begin(other, letters[1])
        assert storage.discard(letters[3].job.id, 1)
        keys = [(one.job.id, 1) for one in letters]
        assert storage.begin_requeues(keys, now=NOON) == [True, False, True, False, True]
        storage.finish_requeues([keys[0], keys[4], keys[3]], now=NOON + SECOND, requeued=True)
        storage.finish_requeues([keys[2], keys[3]], now=NOON + SECOND, requeued=False)
        states = [self.state(other, one) for one in letters]
        assert states == [_S.REQUEUED, _S.REQUEUEING, _S.OPEN, _S.DISCARDED, _S.REQUEUED]

    def test_what_is_named_twice_in_one_call_is_begun_once(self, storage: Storage) -> None:
        key = (self.one(storage).job.id, 1)
        assert storage.begin_requeues([key, key], now=NOON) == [True, False]
        storage.finish_requeues([key, key], now=NOON + SECOND, requeued=True)
        found = storage.dead_letter(key[0])
        assert found is not None
        assert (found.state, found.requeue_count) == (_S.REQUEUED, 1)

    def test_nothing_to_begin_or_finish_is_harmless(self, storage: Storage) -> None:
        assert storage.begin_requeues([], now=NOON) == []
        storage.finish_requeues([], now=NOON, requeued=True)

    def test_of_many_callers_at_once_each_gets_what_no_other_gets(self, storage: Storage, other: Storage) -> None:
        keys = [(self.one(storage).job.id, 1) for _ in range(30)]
        orders = [keys, keys[::-1], keys[15:] + keys[:15]] * 2
        calls = [partial(one.begin_requeues, order, now=NOON) for one, order in zip([storage, other] * 3, orders, strict=True)]
        begun = [key for order, answers in zip(orders, at_once(calls), strict=True) for key, yes in zip(order, answers, strict=True) if yes]
        assert sorted(begun) == sorted(keys)

    def test_what_is_unknown_cannot_be_retried_or_discarded(self, storage: Storage) -> None:
        letter = self.one(storage)
        assert storage.begin_requeues([(letter.job.id, 2), (str(uuid.uuid4()), 1)], now=NOON) == [False, False]
        assert not storage.discard(letter.job.id, 2)
        storage.finish_requeues([(str(uuid.uuid4()), 1)], now=NOON, requeued=True)
        assert self.latest(storage, letter) == letter

    def test_a_retry_that_was_refused_leaves_the_letter_open(self, storage: Storage) -> None:
        letter = self.one(storage)
        self.begin(storage, letter)
        self.finish(storage, letter, requeued=False)
        reopened = self.latest(storage, letter)
        assert (reopened.state, reopened.requeued_at) == (_S.OPEN, None)
        assert self.begin(storage, letter)

    def test_finishing_may_be_repeated_and_late(self, storage: Storage) -> None:
        letter = self.one(storage)
        self.begin(storage, letter)
        self.finish(storage, letter, requeued=True)
        before = self.latest(storage, letter)
        self.finish(storage, letter, requeued=True, seconds=9)
        self.finish(storage, letter, requeued=False, seconds=9)
        assert self.latest(storage, letter) == before

    @pytest.mark.parametrize("requeued", [False, True])
    def test_a_retry_that_somebody_has_begun_since_is_not_finished_for_them(self, storage: Storage, other: Storage, *, requeued: bool) -> None:
        letter = self.one(storage)
        self.begin(storage, letter, seconds=1)
        self.finish(other, letter, requeued=False, seconds=40)
        assert self.begin(other, letter, seconds=41)
        self.finish(storage, letter, requeued=requeued, seconds=1)
        assert self.state(storage, letter) is _S.REQUEUEING
        self.finish(other, letter, requeued=True, seconds=41)
        assert self.state(storage, letter) is _S.REQUEUED

    def test_only_what_was_begun_can_be_finished(self, storage: Storage) -> None:
        letter, gone = self.one(storage), self.one(storage)
        storage.discard(gone.job.id, 1)
        for one in (letter, gone):
            self.finish(storage, one, requeued=True)
            self.finish(storage, one, requeued=False)
        assert (self.state(storage, letter), self.state(storage, gone)) == (_S.OPEN, _S.DISCARDED)

    def test_each_death_is_retried_by_itself(self, storage: Storage) -> None:
        first = self.one(storage, deaths=1)
        assert self.begin(storage, first)
        self.finish(storage, first, requeued=True)
        second = self.one(storage, id=first.job.id, deaths=2, died_at=NOON + HOUR)
        assert self.state(storage, second) is _S.OPEN
        assert self.begin(storage, second)
        assert [(one.job.deaths, one.state) for one in self.all_letters(storage, state=None)] == [(2, _S.REQUEUEING), (1, _S.REQUEUED)]

    def test_retries_that_were_begun_and_not_finished_are_found(self, storage: Storage, other: Storage) -> None:
        letters = [self.one(storage, died_at=NOON - number * SECOND) for number in range(5)]
        for number, letter in enumerate(letters[:4]):
            assert self.begin(storage, letter, seconds=10 * number)
        self.finish(storage, letters[0], requeued=True)
        stale = other.stale_requeues(NOON + 25 * SECOND, 10)
        assert {one.job.id for one in stale} == {one.job.id for one in letters[1:3]}
        assert {one.state for one in stale} == {_S.REQUEUEING}
        assert len(other.stale_requeues(NOON + HOUR, 2)) == 2
        assert other.stale_requeues(NOON + 10 * SECOND, 10) == []

    def test_a_retry_begun_again_is_stale_from_its_new_beginning(self, storage: Storage) -> None:
        letter = self.one(storage)
        self.begin(storage, letter, seconds=0)
        self.finish(storage, letter, requeued=False)
        self.begin(storage, letter, seconds=50)
        assert storage.stale_requeues(NOON + 40 * SECOND, 10) == []
        assert len(storage.stale_requeues(NOON + 60 * SECOND, 10)) == 1

    # Discarding and forgetting ---------------------------------------------------------------------------------------------------------

    def test_an_open_letter_is_discarded_once_and_for_good(self, storage: Storage) -> None:
        letter = self.one(storage)
        assert storage.discard(letter.job.id, 1)
        assert not storage.discard(letter.job.id, 1)
        assert not self.begin(storage, letter)
        assert self.state(storage, letter) is _S.DISCARDED

    def test_a_letter_that_is_being_retried_cannot_be_discarded(self, storage: Storage) -> None:
        letter = self.one(storage)
        self.begin(storage, letter)
        assert not storage.discard(letter.job.id, 1)
        self.finish(storage, letter, requeued=True)
        assert not storage.discard(letter.job.id, 1)
        assert self.state(storage, letter) is _S.REQUEUED

    def test_pruning_forgets_old_letters_that_are_dealt_with_and_never_open_ones(self, storage: Storage) -> None:
        old, new = [self.one(storage, died_at=NOON - 48 * HOUR) for _ in range(6)], [self.one(storage) for _ in range(2)]
        for letter in (*old[:2], *new[:1]):
            assert storage.discard(letter.job.id, 1)
        for letter in old[2:5]:
            assert self.begin(storage, letter)
        for letter in old[2:4]:
            self.finish(storage, letter, requeued=True)
        steps = [storage.prune_dead_letters(NOON - HOUR, 3) for _ in range(3)]
        assert steps == [3, 1, 0]
        left = {one.job.id: one.state for one in self.all_letters(storage, state=None)}
        assert left == {old[4].job.id: _S.REQUEUEING, old[5].job.id: _S.OPEN, new[0].job.id: _S.DISCARDED, new[1].job.id: _S.OPEN}
