"""The statements themselves: each is documented and none walks a table that grows."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import jobqueue_sqlite.checks
import jobqueue_sqlite.statements
from jobqueue_core.storage import DeadLetterFilter, ExecutionFilter
from jobqueue_core.testing.factories import new_jobs
from jobqueue_sqlite import SqliteBroker, SqliteStorage
from jobqueue_sqlite.filters import filtered
from jobqueue_sqlite.statements import statement

FILES = sorted((Path(jobqueue_sqlite.statements.__file__).parent / "sql").glob("*.sql"))
WALKS = {"jobs_astray", "jobs_count_states"}
"""For doctor and tests; they say so."""
GROWING = {"jobs", "logs", "executions", "counted", "rollups", "dead_letters", "unique_keys", "idempotency_keys", "ticks"}


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[SqliteBroker]:
    with closing(SqliteBroker(tmp_path / "jobqueue.db")) as broker:
        yield broker


def plan(broker: SqliteBroker, text: str) -> list[str]:
    bound = dict.fromkeys(re.findall(r":(\w+)", text), "[]")
    with broker.database.read() as connection:
        return [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {text}", bound).fetchall()]


def walked(steps: list[str]) -> list[str]:
    """The growing tables that a plan walks without a bound."""
    return [step for step in steps if (match := re.match(r"SCAN (\w+)", step)) and match[1] in GROWING]


def test_there_are_statements() -> None:
    assert len(FILES) > 50


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_statement_begins_with_its_contract(path: Path) -> None:
    assert path.read_text(encoding="utf-8").startswith("-- ")


@pytest.mark.parametrize("name", [path.stem for path in FILES])
def test_a_statement_walks_no_table_that_grows_unless_it_says_so(broker: SqliteBroker, name: str) -> None:
    text = statement(name).replace("/*filter*/", "state = :state")
    # Reading the oldest rows of a table in its own order ends at the limit.
    bounded = name == "counted_forget"
    assert bool(walked(plan(broker, text))) == (name in WALKS) or bounded


@pytest.mark.parametrize("condition", ["type", "queue", "state", "finished_since_us", "after_execution"])
def test_executions_are_listed_along_an_index_whatever_is_wanted(broker: SqliteBroker, condition: str) -> None:
    steps = plan(broker, filtered("executions_list", {condition: 1}))
    assert walked(steps) == []
    assert "TEMP B-TREE" not in "".join(steps)


@pytest.mark.parametrize("index", ["executions_state", "executions_type", "executions_queue"])
def test_ends_are_listed_along_the_index_that_is_named_from_where_the_page_begins(broker: SqliteBroker, index: str) -> None:
    conditions = {"executions_type": {"type": 1}, "executions_queue": {"queue": 1}}.get(index, {}) | {"after_execution": 1}
    steps = plan(broker, filtered("executions_ends", conditions).replace("/*index*/", f"INDEXED BY {index}"))
    assert walked(steps) == []
    assert "(finished_us,id)<(?,?)" in steps[0]
    assert "TEMP B-TREE" not in "".join(steps)


@pytest.mark.parametrize("condition", ["state", "died_before_us", "after_death"])
def test_dead_letters_are_listed_along_an_index_whatever_is_wanted(broker: SqliteBroker, condition: str) -> None:
    steps = plan(broker, filtered("dead_letters_list", {condition: 1}))
    assert walked(steps) == []
    assert "TEMP B-TREE" not in "".join(steps)


def test_filters_are_bound_never_pasted(tmp_path: Path) -> None:
    evil = "x' OR '1' = '1"
    with closing(SqliteStorage(tmp_path / "jobqueue.db")) as storage:
        assert storage.executions(ExecutionFilter(type=evil, queue=evil), cursor=None, offset=0, limit=10).executions == ()
        assert storage.dead_letters(DeadLetterFilter(type=evil, fingerprint=evil), cursor=None, offset=0, limit=10).dead_letters == ()


# Doctor --------------------------------------------------------------------------------------------------------------------------------


def examine(broker: SqliteBroker, *, fix: bool = False) -> list[tuple[str, bool]]:
    app: Any = SimpleNamespace(broker=broker, storage=None)
    return [(finding.level, finding.fixed) for check in jobqueue_sqlite.checks.checks() for finding in check.run(app, fix)]


def test_doctor_finds_a_sound_file_sound(broker: SqliteBroker) -> None:
    broker.enqueue(new_jobs(3))
    assert examine(broker) == [("ok", False)] * 3


def test_doctor_finds_wrong_counters_and_puts_them_right_when_asked(broker: SqliteBroker) -> None:
    broker.enqueue(new_jobs(3))
    with broker.database.write() as connection:
        connection.execute("UPDATE queues SET medium = 0")
    assert ("error", False) in examine(broker)
    assert ("error", True) in examine(broker, fix=True)
    assert examine(broker) == [("ok", False)] * 3


def test_doctor_finds_jobs_that_stand_in_no_list(broker: SqliteBroker) -> None:
    broker.enqueue(new_jobs(1))
    with broker.database.write() as connection:
        connection.execute("UPDATE jobs SET ready = NULL")
    assert ("error", False) in examine(broker)
