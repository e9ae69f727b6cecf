"""Dead letters on PostgreSQL: nothing is refused that can be kept, and counters are right whoever writes."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from servers import PostgresPlace

from jobqueue_core.attempt import DeadLetter
from jobqueue_core.errors import StorageRejected
from jobqueue_core.storage import DeadLetterFilter
from jobqueue_core.testing.factories import NOON, dead_letter
from jobqueue_postgres import dead_letters
from jobqueue_postgres.storage import PostgresStorage
from jobqueue_postgres.texts import payload_columns

SECOND = timedelta(seconds=1)


@pytest.fixture
def storage(postgres_place: PostgresPlace) -> Iterator[PostgresStorage]:
    """A storage in the test's schema."""
    storage = PostgresStorage(postgres_place.url, namespace=postgres_place.namespace)
    yield storage
    storage.close()


@pytest.fixture
def database(postgres_place: PostgresPlace) -> Iterator[psycopg.Connection[Any]]:
    """A connection to the same schema."""
    with psycopg.connect(postgres_place.url, autocommit=True) as connection:
        connection.execute(f'SET search_path TO "{postgres_place.namespace}"')
        yield connection


def _all(storage: PostgresStorage, **wanted: Any) -> list[DeadLetter]:
    return list(storage.dead_letters(DeadLetterFilter(**wanted), cursor=None, offset=0, limit=500).dead_letters)


# What is kept --------------------------------------------------------------------------------------------------------------------------


def test_names_too_long_for_an_index_are_kept_and_found(storage: PostgresStorage) -> None:
    # Random, so that PostgreSQL cannot pack them.
    long = "".join(chr(number) for number in random.Random(1).choices(range(0x10000, 0x10FFFF), k=500))
    letters = [dead_letter(type=long, queue=long + str(number), died_at=NOON - number * SECOND, metadata={long: "\0"}) for number in range(3)]
    storage.record_dead_letters(letters)
    assert _all(storage) == letters
    assert _all(storage, type=long) == letters
    assert _all(storage, type=long, queue=f"{long}1") == letters[1:2]
    assert storage.count_dead_letters(DeadLetterFilter(queue=f"{long}2")) == 1
    (group,) = storage.dead_letter_groups(DeadLetterFilter(), limit=10)
    assert (group.type, group.count) == (long, 3)


def test_a_payload_of_twenty_megabytes_is_kept(storage: PostgresStorage) -> None:
    big = [dead_letter(payload_json=payload, died_at=NOON) for payload in (b'"%s"' % (b"x" * (20 << 20)), b"\xff" * (20 << 20))]
    small = dead_letter(died_at=NOON - SECOND)
    storage.record_dead_letters([*big, small])
    assert [storage.dead_letter(one.job.id) for one in (*big, small)] == [*big, small]


def test_what_postgresql_does_not_take_for_json_is_kept_as_bytes(postgres_place: PostgresPlace, database: psycopg.Connection[Any]) -> None:
    # With so small a stack it gives up where our own reader does not.
    shallow = PostgresStorage(f"{postgres_place.url}?options=-cmax_stack_depth%3D100kB", namespace=postgres_place.namespace)
    deep = dead_letter(payload_json=b"[" * 900 + b"]" * 900)
    assert payload_columns(deep.job.payload_json)[0] is not None
    with pytest.raises(StorageRejected):
        shallow.record_dead_letters([deep, dead_letter()])
    assert _all(shallow) == []
    shallow.record_dead_letters([deep])
    assert _all(shallow) == [deep]
    assert database.execute("SELECT payload::text, payload_raw FROM dead_letter_queue").fetchall() == [(None, deep.job.payload_json)]
    shallow.close()


def test_a_row_that_cannot_be_kept_is_refused_with_its_batch_and_nothing_is_written(storage: PostgresStorage) -> None:
    for bad in (dead_letter(id="no uuid"), dead_letter(id="\0"), dead_letter(deaths=1 << 40), dead_letter(error="half a pair: \ud800")):
        with pytest.raises(StorageRejected):
            storage.record_dead_letters([dead_letter(), bad])
    assert storage.count_dead_letters(DeadLetterFilter(state=None)) == 0


@settings(max_examples=200, deadline=None)
@given(
    st.text(alphabet='[]{}",:01.eE+-\\u \n', max_size=12)
    | st.text().map(json.dumps)
    | st.tuples(
        st.text().map(lambda text: json.dumps(text, ensure_ascii=False)), st.sampled_from(["\\ud800", "\\", "\x00", "\x7f", "\ufffe", "1"])
    ).map(lambda pair: pair[0][:-1] + pair[1] + '"')
)
def test_what_we_take_for_json_postgresql_does_too(module_postgres_place: PostgresPlace, text: str) -> None:
    as_json, raw = payload_columns(text.encode())
    if raw is None:
        with psycopg.connect(module_postgres_place.url) as connection:
            assert connection.execute("SELECT %s::json::text", [as_json]).fetchone() == (text,)


def test_people_read_what_died_by_sql(storage: PostgresStorage, database: psycopg.Connection[Any]) -> None:
    storage.record_dead_letters([dead_letter(type="mail.send", payload_json=b'{"to":  "a"}', metadata={"city": "zürich"}, error="ValueError: 7")])
    row = database.execute(
        "SELECT type, payload ->> 'to', payload::text, metadata ->> 'city', error, attempts, state FROM dead_letter_queue"
    ).fetchone()
    assert row == ("mail.send", "a", '{"to":  "a"}', "zürich", "ValueError: 7", 4, "open")


# Counters ------------------------------------------------------------------------------------------------------------------------------


def _counted(database: psycopg.Connection[Any]) -> tuple[dict[Any, int], dict[Any, int]]:
    """By state, fingerprint, type and queue: what the counters say, and what there is."""
    kept = database.execute("SELECT state, fingerprint, type, queue, count FROM dead_letter_counts WHERE count <> 0").fetchall()
    there = database.execute("SELECT state, fingerprint, type, queue, count(*) FROM dead_letter_queue GROUP BY 1, 2, 3, 4").fetchall()
    return {row[:4]: row[4] for row in kept}, {row[:4]: row[4] for row in there}


def test_counters_are_right_after_any_writers_at_once_and_nobody_waits_crosswise(
    storage: PostgresStorage, database: psycopg.Connection[Any], postgres_place: PostgresPlace
) -> None:
    letters = [
        dead_letter(type=f"type.{number % 3}", queue=f"queue-{number % 2}", error=f"Error{'ABC'[number % 3]}", died_at=NOON - number * SECOND)
        for number in range(60)
    ]
    keys = [(one.job.id, one.job.deaths) for one in letters]

    def write(seed: int) -> None:
        chance = random.Random(seed)
        own = PostgresStorage(postgres_place.url, namespace=postgres_place.namespace)
        for _ in range(120):
            some = chance.sample(range(60), 15)
            match chance.randrange(6):
                case 0 | 1:
                    own.record_dead_letters([letters[number] for number in some])
                case 2:
                    own.begin_requeues([keys[number] for number in some], now=NOON)
                case 3:
                    own.finish_requeues([keys[number] for number in some], now=NOON, requeued=chance.random() < 0.7)
                case 4:
                    own.discard(*keys[some[0]])
                case _:
                    own.prune_dead_letters(NOON, 5)
        own.close()

    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(write, seed) for seed in range(4)]:
            done.result(timeout=60)
    kept, there = _counted(database)
    assert kept == there
    assert len(there) > 3
    assert storage.count_dead_letters(DeadLetterFilter(state=None)) == sum(there.values())


def test_retries_of_the_same_letters_at_once_never_wait_crosswise(
    storage: PostgresStorage, database: psycopg.Connection[Any], postgres_place: PostgresPlace
) -> None:
    letters = [dead_letter(died_at=NOON) for _ in range(300)]
    storage.record_dead_letters(letters)

    def retry(seed: int) -> None:
        keys = [(one.job.id, one.job.deaths) for one in letters]
        own = PostgresStorage(postgres_place.url, namespace=postgres_place.namespace)
        for _ in range(10):
            random.Random(seed).shuffle(keys)
            own.begin_requeues(keys, now=NOON)
            own.finish_requeues(keys, now=NOON, requeued=False)
        own.close()

    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(retry, seed) for seed in range(4)]:
            done.result(timeout=60)
    kept, there = _counted(database)
    assert kept == there


def test_a_batch_of_known_and_new_ones_counts_the_new_ones(storage: PostgresStorage, database: psycopg.Connection[Any]) -> None:
    letters = [dead_letter(died_at=NOON) for _ in range(4)]
    storage.record_dead_letters(letters[:2])
    storage.record_dead_letters([*letters, *letters])
    assert storage.count_dead_letters(DeadLetterFilter()) == 4
    kept, there = _counted(database)
    assert kept == there


def test_an_emptied_table_counts_nothing(storage: PostgresStorage, database: psycopg.Connection[Any]) -> None:
    storage.record_dead_letters([dead_letter()])
    database.execute("TRUNCATE dead_letter_queue")
    assert storage.count_dead_letters(DeadLetterFilter()) == 0
    assert storage.dead_letter_groups(DeadLetterFilter(), limit=10) == []


def test_pruning_forgets_counters_of_which_nothing_is_left(storage: PostgresStorage, database: psycopg.Connection[Any]) -> None:
    old, kept = dead_letter(died_at=NOON - SECOND), dead_letter(type="other.type", died_at=NOON)
    storage.record_dead_letters([old, kept])
    storage.discard(old.job.id, 1)
    assert storage.prune_dead_letters(NOON, 10) == 1
    assert database.execute("SELECT type, count FROM dead_letter_counts").fetchall() == [("other.type", 1)]


def test_pruning_passes_over_what_somebody_else_is_at(storage: PostgresStorage, database: psycopg.Connection[Any]) -> None:
    letters = [dead_letter(died_at=NOON - number * SECOND) for number in range(1, 5)]
    storage.record_dead_letters(letters)
    for letter in letters:
        storage.discard(letter.job.id, 1)
    with database.transaction():
        database.execute("SELECT FROM dead_letter_queue ORDER BY died_at LIMIT 2 FOR UPDATE")
        assert storage.prune_dead_letters(NOON, 10) == 2
    assert storage.prune_dead_letters(NOON, 10) == 2


def test_what_the_table_refuses_is_kept_aside_and_stored_once_it_is_taken(storage: PostgresStorage, postgres_place: PostgresPlace) -> None:
    letters = [dead_letter(type="a.bad"), dead_letter(type="a.good"), dead_letter(id="no uuid at all")]
    with psycopg.connect(postgres_place.url, autocommit=True, options=f"-c search_path={postgres_place.namespace}") as connection:
        connection.execute("ALTER TABLE dead_letter_queue ADD CONSTRAINT somebodys CHECK (type <> 'a.bad')")
        with pytest.raises(StorageRejected):
            storage.record_dead_letters(letters)
        for letter in (*letters, letters[0]):
            storage.record_dead_letters([letter])
        assert storage.count_dead_letters(DeadLetterFilter()) == 1
        with storage.connections.transaction() as inside:
            count, problem = dead_letters.refused(inside)
        assert count == 2
        assert problem is not None
        storage.prune_dead_letters(letters[0].died_at, 10)
        assert storage.dead_letter(letters[0].job.id) is None

        connection.execute("ALTER TABLE dead_letter_queue DROP CONSTRAINT somebodys")
    storage.prune_dead_letters(letters[0].died_at, 10)
    assert storage.dead_letter(letters[0].job.id) == letters[0]
    with storage.connections.transaction() as inside:
        assert dead_letters.refused(inside)[0] == 1, "what has no id that fits stays"
