"""The plugin ``cron``: schedules in the config file, cron expressions, and their ticks beside every scheduler."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from jobqueue_core import PluginError, hookimpl
from jobqueue_core.service import ServicePlugin
from jobqueue_core.timetable import TimetablePlugin

from .entries import CronEntry

if TYPE_CHECKING:
    from jobqueue_core.app import App
    from jobqueue_core.checks import Check
    from jobqueue_core.settings import Settings
    from jobqueue_core.timetable import Timetable

    from .ticker import Ticker

_NAME: Final = "cron"


@hookimpl
def jobqueue_settings() -> Mapping[str, Any]:
    """The array of tables ``[[cron]]``."""
    return {_NAME: list[CronEntry]}


@hookimpl
def jobqueue_timetables() -> Iterable[TimetablePlugin]:
    """Cron expressions."""
    return [TimetablePlugin(name=_NAME, read=_read)]


@hookimpl
def jobqueue_services() -> Iterable[ServicePlugin]:
    """What fires the ticks: within each scheduler."""
    return [ServicePlugin(name=_NAME, summary="fires the ticks of schedules", open=_ticker, internal=True, within="scheduler")]


@hookimpl
def jobqueue_checks(settings: Settings) -> Iterable[Check]:  # noqa: ARG001 - as the hook has it
    """What ``doctor`` looks at where there are schedules."""
    from .checks import checks

    return checks()


def _read(expression: str, timezone: str) -> Timetable:
    try:
        from .timetable import read
    except ImportError as error:
        raise PluginError(f"needs the extra 'cron': pip install 'jobqueue[cron]' ({error})", plugin=_NAME) from error
    return read(expression, timezone)


def _ticker(app: App) -> Ticker:
    from .ticker import Ticker

    entries: list[CronEntry] = app.settings.section(_NAME)
    return Ticker(
        app.queue,
        app.storage,
        poll_interval=app.settings.scheduler.poll_interval,
        # Without a config file there is nothing that a schedule could have been taken out of.
        declared=None if app.settings.source is None else {one.name: one.fields() for one in entries},
    )
