"""The ``Cli`` object: all that a command needs, its own or another plugin's, found in ``click.Context.obj``."""

from __future__ import annotations

import contextlib
import getpass
import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from jobqueue_cli import rendering
from jobqueue_cli.wording import one_line, printable

if TYPE_CHECKING:
    from jobqueue_cli.rendering import Columns
    from jobqueue_core.app import App
    from jobqueue_core.client import JobQueue
    from jobqueue_core.operations import Operations

__all__ = ["Cli", "warnings_on_stderr", "without_warnings"]


class Cli:
    """What a command is given: the assembled app, and how to answer.

    A command of another plugin takes it by ``@click.pass_obj``, calls :attr:`operations` or :attr:`app`, and shows what came of it by
    :meth:`show`, :meth:`show_list` or :meth:`answer`; ``-c`` and ``--json`` are added to it without its doing.

    Args:
        open_app: Assembles the app from a config file; None stands for the usual way.
        now: This host's clock.
    """

    def __init__(self, *, open_app: Callable[[Path | None], App] | None = None, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._open_app = open_app or _from_config
        self._now = now
        self._config: Path | None = None
        self.as_json = False
        """Whether stdout is to carry JSON and nothing else."""

    def use_config(self, path: str) -> None:
        """Read that config file. The last one named on the command line counts."""
        self._config = Path(path)

    # What it works on ------------------------------------------------------------------------------------------------------------------

    @cached_property
    def app(self) -> App:
        """The app, assembled when it is first asked for.

        Raises:
            ConfigError: With every problem of the configuration.
        """
        app = self._open_app(self._config)
        for warning in app.settings.warnings:
            self.note(f"warning: {warning}")
        return app

    @property
    def queue(self) -> JobQueue:
        """The client."""
        return self.app.queue

    @cached_property
    def operations(self) -> Operations:
        """The service layer; what is done through it is logged under this user's name."""
        return self.app.operations.acting_as(f"cli:{_user()}")

    def moment(self, given: datetime | timedelta | None) -> datetime | None:
        """A time that was given, or the one so long ago, by the broker's clock; None stays None."""
        return self.queue.broker.now() - given if isinstance(given, timedelta) else given

    def close(self) -> None:
        """Close what was opened."""
        if "app" in self.__dict__:
            self.app.close()

    # How it answers --------------------------------------------------------------------------------------------------------------------

    def show(self, fields: Mapping[str, Any]) -> None:
        """Show one object, field by field."""
        if self.as_json:
            rendering.write_json(fields)
        else:
            rendering.write_fields(fields, now=self._now())

    def show_list(self, objects: Sequence[Mapping[str, Any]], columns: Columns) -> None:
        """Show many objects: a table on a terminal, tab-separated lines without a heading to a pipe, an array as JSON.

        Args:
            objects: What ``--json`` prints.
            columns: Heading -> a field (``depth.high`` for one inside another), or a function of the object that gives text.
        """
        if self.as_json:
            rendering.write_json(objects)
        else:
            rendering.write_list(objects, columns, now=self._now())

    def answer(self, fields: object, text: str) -> None:
        """Say what was done: *text*, or as JSON *fields*."""
        if self.as_json:
            rendering.write_json(fields)
        else:
            click.echo(printable(text))

    def note(self, text: str) -> None:
        """Say something beside the answer, on stderr."""
        click.echo(one_line(text), err=True)

    def hint(self, text: str) -> None:
        """As :meth:`note`, but only to someone who sits at a terminal."""
        if sys.stdout.isatty() and not self.as_json:
            self.note(text)

    def fail(self) -> NoReturn:
        """End with status 1: what was asked has been answered, and the answer is bad."""
        click.get_current_context().exit(1)

    def confirm(self, question: str, *, yes: bool) -> None:
        """Ask before doing what cannot be undone: only where stdin is a terminal, and unless *yes*.

        Raises:
            click.Abort: The answer was no.
        """
        if not yes and sys.stdin.isatty():
            click.confirm(printable(question), abort=True, err=True)

    @contextlib.contextmanager
    def progress(self, description: str) -> Iterator[Callable[[int, int], None]]:
        """Show how far something has come, on a terminal; elsewhere do nothing. Gives a function of (done, in all)."""
        if not sys.stderr.isatty():
            yield lambda _done, _total: None
            return
        with rendering.progress_bar(description) as update:
            yield update


def _from_config(path: Path | None) -> App:
    from jobqueue_core.app import App

    return App.from_config(path, environ=os.environ)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


class _WarningsOnStderr(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        click.echo(f"{record.levelname.lower()}: {one_line(record.getMessage())}", err=True)


@contextlib.contextmanager
def warnings_on_stderr() -> Iterator[None]:
    """Show the framework's own warnings as lines on stderr for the time of a command."""
    logger = logging.getLogger("jobqueue")
    handler = _WarningsOnStderr(logging.WARNING)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


@contextlib.contextmanager
def without_warnings() -> Iterator[None]:
    """Keep the framework's own warnings back, for a command that finds out the same and says it better."""
    logger = logging.getLogger("jobqueue")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
