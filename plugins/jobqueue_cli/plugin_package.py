"""The files of a new plugin."""

from __future__ import annotations

from collections.abc import Mapping
from string import Template
from typing import Final

from jobqueue_cli.handler_package import GITIGNORE

__all__ = ["files"]

_PYPROJECT: Final = Template("""\
[build-system]
requires = ["setuptools>=61"]
build-backend = "setuptools.build_meta"

[project]
name = "$name"
version = "0.1.0"
description = "A plugin for jobqueue"
readme = "README.md"
requires-python = ">=3.11"
dependencies = ["jobqueue"]

[project.optional-dependencies]
test = ["pytest"]

# The value is a module; the functions in it that are marked with @hookimpl are asked what they offer.
[project.entry-points."jobqueue.plugins"]
$name = "$module.plugin"

[tool.setuptools.packages.find]
where = ["src"]

[tool.setuptools.package-data]
$module = ["py.typed"]

[tool.pytest.ini_options]
testpaths = ["tests"]
addopts = ["--import-mode=importlib"]
""")

_README: Final = Template("""\
# $name

A plugin for [jobqueue](https://pypi.org/project/jobqueue/): it warns of slow runs.

    pip install -e '.[test]'
    pytest
    jobqueue plugins                   # lists $name and what it offers
    jobqueue doctor                    # runs its check

In the config file:

    [$module]
    slow = "5s"                        # runs that take longer are logged
""")

_INIT: Final = Template('''\
"""The plugin $name."""
''')

_PLUGIN: Final = Template('''\
"""What this plugin offers; the work is done in the modules beside it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import timedelta

import attrs

from jobqueue_core import Settings, hookimpl
from jobqueue_core.checks import Check
from jobqueue_core.middleware import Middleware
from jobqueue_core.options import option

from $module.slow_runs import check, slow_runs


@attrs.frozen(kw_only=True)
class Section:
    """The table ``[$module]`` of the config file."""

    slow: timedelta = option(timedelta(seconds=5), help="Runs that take longer are logged.")


@hookimpl
def jobqueue_settings() -> Mapping[str, type]:
    """Offer a section of the config file."""
    return {"$module": Section}


@hookimpl
def jobqueue_middleware(settings: Settings) -> Iterable[Middleware]:
    """Offer what is wrapped round every run."""
    return [slow_runs(settings.section("$module").slow)]


@hookimpl
def jobqueue_checks(settings: Settings) -> Iterable[Check]:
    """Offer what ``jobqueue doctor`` looks at."""
    return [check(settings.section("$module").slow)]
''')

_SLOW_RUNS: Final = Template('''\
"""Slow runs: a middleware that logs them, and a check of the limit."""

from __future__ import annotations

import logging
import time
from datetime import timedelta

from jobqueue_core import JobContext
from jobqueue_core.checks import Check, Finding
from jobqueue_core.middleware import Middleware, Next

_log = logging.getLogger("$module")


def slow_runs(limit: timedelta) -> Middleware:
    """A middleware that logs each run that takes longer than *limit*, however it ends."""

    async def log_slow_runs(ctx: JobContext, call_next: Next) -> object:
        begun = time.monotonic()
        try:
            return await call_next(ctx)
        finally:
            took = time.monotonic() - begun
            if took > limit.total_seconds():
                _log.warning("slow run: %s took %.3f s", ctx.job.type, took, extra={"fields": {"job_id": ctx.job.id, "run": ctx.run}})

    return log_slow_runs


def check(limit: timedelta) -> Check:
    """A check that *limit* can be exceeded before a run times out."""

    def run(app: object, fix: bool) -> list[Finding]:
        if limit <= timedelta(0):
            return [Finding(level="warning", text="every run counts as slow", remedy="raise [$module] slow")]
        return [Finding(level="ok", text=f"runs longer than {limit} are logged")]

    return Check(name="$module", run=run)
''')

_TEST: Final = Template("""\
from __future__ import annotations

import logging
from datetime import timedelta
from importlib.metadata import entry_points

import pytest
from jobqueue_core import handler
from jobqueue_core.testing import Harness

from $module import plugin
from $module.slow_runs import check, slow_runs


@handler("report.make")
def make_report(payload: None) -> str:
    return "done"


@pytest.mark.parametrize(("limit", "logged"), [(timedelta(0), True), (timedelta(hours=1), False)])
def test_runs_that_take_longer_than_the_limit_are_logged(limit: timedelta, logged: bool, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="$module"), Harness([make_report], middleware=[slow_runs(limit)]) as harness:
        job = harness.run("report.make")
    assert job.result == "done"
    assert ("slow run: report.make" in caplog.text) is logged


@pytest.mark.parametrize(("limit", "level"), [(timedelta(seconds=5), "ok"), (timedelta(0), "warning")])
def test_the_doctor_is_told_whether_the_limit_makes_sense(limit: timedelta, level: str) -> None:
    (finding,) = check(limit).run(None, False)
    assert finding.level == level


def test_the_plugin_is_found_once_the_package_is_installed() -> None:
    (found,) = entry_points(group="jobqueue.plugins", name="$name")
    assert found.load() is plugin
""")


def files(name: str, module: str) -> Mapping[str, str]:
    """What to write: path in the new folder -> text.

    Args:
        name: The distribution's name.
        module: Its import name.
    """
    templates = {
        "pyproject.toml": _PYPROJECT,
        "README.md": _README,
        f"src/{module}/__init__.py": _INIT,
        f"src/{module}/plugin.py": _PLUGIN,
        f"src/{module}/slow_runs.py": _SLOW_RUNS,
        "tests/test_plugin.py": _TEST,
    }
    written = {path: template.substitute(name=name, module=module) for path, template in templates.items()}
    return {**written, f"src/{module}/py.typed": "", ".gitignore": GITIGNORE}
