"""The plugin ``cli``: its commands and checks, offered by the same hooks as anyone else's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jobqueue_core.hookspecs import hookimpl
from jobqueue_core.service import CommandPlugin

if TYPE_CHECKING:
    from jobqueue_core.checks import Check
    from jobqueue_core.settings import Settings

__all__ = ["jobqueue_checks", "jobqueue_commands"]


@hookimpl
def jobqueue_commands() -> list[CommandPlugin]:
    """The commands that need no other plugin."""
    return [
        CommandPlugin(name="enqueue", help="Enqueue one job.", target="jobqueue_cli.enqueue:enqueue"),
        CommandPlugin(name="job", help="Show, cancel or wait for one job, or read its log.", target="jobqueue_cli.jobs:job"),
        CommandPlugin(name="jobs", help="List jobs: live ones newest first, then those that finished last.", target="jobqueue_cli.jobs:jobs"),
        CommandPlugin(name="queue", help="Pause, resume or purge a queue.", target="jobqueue_cli.queues:queue"),
        CommandPlugin(name="queues", help="List the queues in numbers.", target="jobqueue_cli.queues:queues"),
        CommandPlugin(name="dlq", help="List, retry or delete dead letters.", target="jobqueue_cli.dead_letters:dlq"),
        CommandPlugin(name="executions", help="List executions, newest first.", target="jobqueue_cli.executions:executions"),
        CommandPlugin(name="schedules", help="List, add, edit, pause or run schedules.", target="jobqueue_cli.schedules:schedules"),
        CommandPlugin(name="workers", help="List the workers that live, and what they run.", target="jobqueue_cli.workers:workers"),
        CommandPlugin(name="stats", help="Show the whole in numbers.", target="jobqueue_cli.statistics:stats"),
        CommandPlugin(name="plugins", help="List what is installed, and what is broken.", target="jobqueue_cli.installed:plugins"),
        CommandPlugin(name="handlers", help="List the job handlers that are installed here.", target="jobqueue_cli.installed:handlers"),
        CommandPlugin(name="new", help="Write a new package of handlers, or a new plugin.", target="jobqueue_cli.new:new"),
        CommandPlugin(name="doctor", help="Look for what is wrong, and what to do about it.", target="jobqueue_cli.doctor:doctor"),
    ]


@hookimpl
def jobqueue_checks(settings: Settings) -> list[Check]:
    """What ``jobqueue doctor`` looks at in every installation."""
    from jobqueue_cli.checks import Examination

    return Examination(settings).checks()
