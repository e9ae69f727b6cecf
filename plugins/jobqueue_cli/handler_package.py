"""The files of a new package of job handlers."""

from __future__ import annotations

from collections.abc import Mapping
from string import Template
from typing import Final

__all__ = ["GITIGNORE", "files"]

GITIGNORE: Final = """__pycache__/
*.egg-info/
/build/
/dist/
/.venv/
"""

_PYPROJECT: Final = Template("""\
[build-system]
requires = ["setuptools>=61"]
build-backend = "setuptools.build_meta"

[project]
name = "$name"
version = "0.1.0"
description = "Job handlers for jobqueue"
readme = "README.md"
requires-python = ">=3.11"
dependencies = ["jobqueue"]

[project.optional-dependencies]
test = ["pytest"]

# This is all that makes a package offer handlers: the value is a module, and every @handler in it is found.
[project.entry-points."jobqueue.handlers"]
$name = "$module.handlers"

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

Job handlers for [jobqueue](https://pypi.org/project/jobqueue/).

    pip install -e '.[test]'
    pytest
    jobqueue handlers                  # lists $module.greet
    jobqueue-run                       # a worker that serves it, in another terminal
    jobqueue enqueue $module.greet --payload '{"name": "Ada"}' --wait
""")

_INIT: Final = Template('''\
"""Job handlers of $name."""
''')

_HANDLERS: Final = Template('''\
"""The handlers of this package: each turns a payload into a result."""

from __future__ import annotations

from dataclasses import dataclass

from jobqueue_core import Discard, JobContext, handler


@dataclass(frozen=True, kw_only=True)
class Greeting:
    """The payload of ``$module.greet``; one that does not fit is refused before the handler is called."""

    name: str
    greeting: str = "Hello"


@handler("$module.greet", max_retries=3, timeout="30s")
def greet(payload: Greeting, ctx: JobContext) -> dict[str, str]:
    """Greet someone.

    A job may run more than once (its worker may die before it has said that it is done), so do here what may be done twice, or look at
    ``ctx.job.id`` and ``ctx.run``. An exception is a failure: the job is tried again, as often as ``max_retries`` says.

    Raises:
        Discard: There is no name. Trying again would not help, so the job is dead at once.
    """
    if not payload.name.strip():
        raise Discard("there is no name to greet")
    ctx.logger.info("greeting %s", payload.name)
    return {"text": f"{payload.greeting}, {payload.name}!"}
''')

_TEST: Final = Template("""\
from __future__ import annotations

from importlib.metadata import entry_points

from jobqueue_core.testing import Harness

from $module import handlers


def test_someone_is_greeted() -> None:
    with Harness([handlers]) as harness:
        job = harness.run("$module.greet", {"name": "Ada"})
    assert (job.state, job.result) == ("completed", {"text": "Hello, Ada!"})


def test_nobody_is_not_greeted_and_not_tried_again() -> None:
    with Harness([handlers]) as harness:
        job = harness.run("$module.greet", {"name": " "})
    assert (job.state, job.dead_reason, job.run) == ("dead", "discarded", 1)


def test_a_payload_that_does_not_fit_is_refused() -> None:
    with Harness([handlers]) as harness:
        job = harness.run("$module.greet", {"name": 7})
    assert (job.state, job.dead_reason) == ("dead", "invalid_payload")
    assert "payload.name" in (job.last_error or "")


def test_the_handlers_are_found_once_the_package_is_installed() -> None:
    (found,) = entry_points(group="jobqueue.handlers", name="$name")
    assert found.load() is handlers
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
        f"src/{module}/handlers.py": _HANDLERS,
        "tests/test_handlers.py": _TEST,
    }
    written = {path: template.substitute(name=name, module=module) for path, template in templates.items()}
    return {**written, f"src/{module}/py.typed": "", ".gitignore": GITIGNORE}
