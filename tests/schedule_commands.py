"""What the tests of ``jobqueue schedules`` share: an app in an empty folder, the command on it in this process, and hands that run jobs.

The functions that say so are fixtures; a module names those that it uses: ``app = pytest.fixture(open_app)``.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from jobqueue_cli.plugin import jobqueue_commands
from jobqueue_cli.root import Root
from jobqueue_cli.session import Cli
from jobqueue_core.app import App
from jobqueue_core.broker import Lease

__all__ = ["Answer", "Run", "add", "code", "make_answer", "make_run", "open_app", "stand_in_new_york", "stored", "take"]

Run = Callable[..., Result]
Answer = Callable[..., Any]


class _Kept(App):
    """Each command closes the app it was given; a test looks at it after many."""

    def close(self) -> None:
        pass


# Fixtures ------------------------------------------------------------------------------------------------------------------------------


def open_app(tmp_path: Path) -> Iterator[App]:
    """The fixture ``app``."""
    (tmp_path / "jobqueue.toml").write_text("")
    app = _Kept.from_config(tmp_path / "jobqueue.toml", environ={})
    yield app
    App.close(app)


def make_run(app: App) -> Run:
    """The fixture ``run``: calls a command on ``app``."""

    def run(*arguments: str, **options: Any) -> Result:
        root = Root({one.name: one for one in jobqueue_commands()}, cli=Cli(open_app=lambda _path: app))
        return CliRunner().invoke(root, ["schedules", *arguments], prog_name="jobqueue", **options)

    return run


def make_answer(run: Run) -> Answer:
    """The fixture ``answer``: the JSON that a command answers with, once it has succeeded."""

    def answer(*arguments: str) -> Any:
        result = run(*arguments, "--json")
        assert result.exit_code == 0, result.stderr
        return json.loads(result.stdout)

    return answer


def stand_in_new_york() -> Iterator[None]:
    """The fixture ``in_new_york``: this terminal stands there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", "America/New_York")
        time.tzset()
        yield
    time.tzset()


# Hands ---------------------------------------------------------------------------------------------------------------------------------


def add(app: App, name: str = "nightly", expression: str = "0 3 * * *", **options: Any) -> None:
    app.operations.schedules.add(name, expression, "report.build", **options)


def take(app: App, wait: timedelta = timedelta(0)) -> Lease:
    (lease,) = app.broker.lease(["default"], 1, worker_id="w", lease_for=timedelta(seconds=30), wait=wait, suspects=1)
    return lease


def stored(app: App, name: str = "nightly") -> dict[str, Any]:
    return app.operations.schedules.get(name).to_dict()


def code(result: Result) -> str:
    return str(json.loads(result.stderr.splitlines()[-1])["code"])
