"""Importing the front door is quick: a producer or a command line that only lists its help pays for nothing it does not use."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

SLOW = ["asyncio", "cattrs", "click", "concurrent.futures", "hypothesis", "importlib.metadata", "pytest", "rich", "sqlite3", "tomllib"]
OURS = ["app", "client", "worker", "settings", "plugins", "operations", "recorder", "testing"]


def imported_by(program: str) -> set[str]:
    program = f"{program}\nimport sys, json; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    return set(json.loads(done.stdout))


@pytest.mark.parametrize("program", ["import jobqueue_core", "from jobqueue_core import handler, JobContext, Retry, hookimpl"])
def test_the_front_door_imports_no_more_than_the_vocabulary(program: str) -> None:
    modules = imported_by(program)
    before = imported_by("")
    assert [name for name in SLOW if name in modules - before] == []
    assert [name for name in OURS if f"jobqueue_core.{name}" in modules] == []


def test_a_producer_needs_no_worker() -> None:
    modules = imported_by("from jobqueue_core import JobQueue; JobQueue.recording().enqueue('t', 1)")
    assert [name for name in ("worker", "executor", "runners.loop", "supervisor") if f"jobqueue_core.{name}" in modules] == []


def test_the_core_imports_no_plugin_and_no_driver() -> None:
    modules = imported_by("import jobqueue_core.worker, jobqueue_core.app, jobqueue_core.operations, jobqueue_core.recorder")
    foreign = {"jobqueue_sqlite", "jobqueue_cli", "sqlite3", "click", "rich", "redis", "psycopg", "falcon", "croniter"}
    assert foreign & {name.partition(".")[0] for name in modules - imported_by("")} == set()


def test_every_name_of_the_front_door_is_there() -> None:
    program = "import jobqueue_core\nfor name in jobqueue_core.__all__: getattr(jobqueue_core, name)"
    assert "jobqueue_core.worker" in imported_by(program)


def test_an_unknown_name_is_an_attribute_error() -> None:
    import jobqueue_core

    with pytest.raises(AttributeError, match="no_such_name"):
        _ = jobqueue_core.no_such_name
