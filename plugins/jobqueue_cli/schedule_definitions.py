"""``jobqueue schedules add`` and ``edit``: the commands that define one."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar, get_args

import click

from jobqueue_cli.parameters import DURATION, INSTANT, PAYLOAD, Payload
from jobqueue_cli.schedule_wording import due_text
from jobqueue_core.job import Priority
from jobqueue_core.scheduling.definition import Misfire, Overlap

if TYPE_CHECKING:
    from jobqueue_cli.session import Cli
    from jobqueue_core.storage import Schedule

__all__ = ["add", "edit"]

C = TypeVar("C", bound=Callable[..., object])

_UNSETTABLE: Final = ("queue", "priority", "max-retries", "timeout", "jitter", "start", "end")


def _options(function: C) -> C:
    """What may be said of a schedule besides its name, expression, type and payload; the service layer has the defaults."""
    for option in reversed(
        (
            click.option("--timezone", metavar="ZONE", help="By whose clocks it is due, as Europe/Berlin (UTC unless told otherwise)."),
            click.option("--queue", metavar="NAME", help="Where its jobs go; else where their handler says."),
            click.option("--priority", type=click.Choice([one.value for one in Priority]), help="Likewise."),
            click.option("--max-retries", type=int, metavar="N", help="How often to try a job again after a failure; else as its handler says."),
            click.option("--timeout", type=DURATION, help="How long one run may take; likewise."),
            click.option(
                "--misfire",
                type=click.Choice(get_args(Misfire)),
                help="What to do about ticks that were missed while no scheduler ran: run the latest once (unless told otherwise), skip or run all.",
            ),
            click.option("--misfire-limit", type=int, metavar="N", help="Of all that were missed at most the latest N (100 unless told otherwise)."),
            click.option(
                "--overlap",
                type=click.Choice(get_args(Overlap)),
                help="At a tick while the last job has not ended: allow another (unless told otherwise), or skip the tick.",
            ),
            click.option("--jitter", type=DURATION, help="Let each job wait a random time up to this."),
            click.option("--start", type=INSTANT, help="Not due before that time, given with its offset."),
            click.option("--end", type=INSTANT, help="Not due after that time."),
            click.option("--strict", is_flag=True, help="Refuse a job type that nobody here handles, instead of warning."),
        )
    ):
        function = option(function)
    return function


@click.command(context_settings={"allow_extra_args": True})
@click.argument("name")
@click.argument("expression")
@click.argument("job_type", metavar="TYPE")
@click.option("--payload", type=PAYLOAD, metavar="JSON|@FILE|-", help="The payload of its jobs: JSON, a file or stdin; else null.")
@_options
@click.option("--disabled", is_flag=True, help="Let it wait until it is resumed.")
@click.pass_obj
def add(cli: Cli, /, *, name: str, expression: str, job_type: str, payload: Payload | None, disabled: bool, strict: bool, **options: Any) -> None:
    r"""Add a schedule, which makes jobs of TYPE when EXPRESSION says.

    EXPRESSION stands in quotes. It has five cron fields, or six with seconds first, or is @hourly, @daily and so on.

    \b
      jobqueue schedules add nightly '30 3 * * mon-fri' report.build
    """
    if click.get_current_context().args:
        # A shell has taken an expression without quotes apart, and perhaps made file names of its stars.
        raise click.UsageError("too many words: put the expression in quotes, as '30 3 * * *'")
    given = {field: value for field, value in options.items() if value is not None}
    value = None if payload is None else payload.value
    schedule = cli.operations.schedules.add(name, expression, job_type, value, enabled=not disabled, strict=strict, **given)
    _answer(cli, schedule, "added")


@click.command()
@click.argument("name")
@click.option("--expression", metavar="TEXT", help="When it is due.")
@click.option("--type", metavar="TYPE", help="The type of its jobs.")
@click.option("--payload", type=PAYLOAD, metavar="JSON|@FILE|-", help="Their payload.")
@_options
@click.option("--enable/--disable", "enabled", default=None, help="Let it be due, or wait until it is resumed.")
@click.option("--unset", multiple=True, type=click.Choice(_UNSETTABLE), help="As if this had never been given; may be repeated.")
@click.pass_obj
def edit(cli: Cli, /, *, name: str, payload: Payload | None, strict: bool, unset: tuple[str, ...], **options: Any) -> None:
    """Change what is given of a schedule, and nothing else.

    One that the config file defines is changed there.
    """
    changes = {field: value for field, value in options.items() if value is not None}
    if payload is not None:
        changes["payload"] = payload.value
    for option in unset:
        field = option.replace("-", "_")
        if changes.get(field) is not None:
            raise click.UsageError(f"--{option} and --unset {option} cannot be given together")
        changes[field] = None
    if not changes:
        raise click.UsageError("nothing to change: say what, as --expression or --unset")
    _answer(cli, cli.operations.schedules.edit(name, changes, strict=strict), "changed")


def _answer(cli: Cli, schedule: Schedule, done: str) -> None:
    cli.answer(schedule.to_dict(), f"schedule {schedule.name} is {done}: {due_text(schedule)}")
