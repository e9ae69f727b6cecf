"""``jobqueue schedules``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import click

from jobqueue_cli.clocks import clock, here, on_both, tick_object, turns
from jobqueue_cli.failures import failure_of
from jobqueue_cli.parameters import COUNT, DURATION, INSTANT
from jobqueue_cli.schedule_definitions import add, edit
from jobqueue_cli.schedule_wording import STATES, due_text, run_text, state_of, suggesting
from jobqueue_cli.session import Cli
from jobqueue_cli.waiting import show_finished
from jobqueue_cli.wording import counted
from jobqueue_core.errors import Conflict, InvalidSchedule, JobNotFound, PluginError

if TYPE_CHECKING:
    from jobqueue_cli.rendering import Columns

__all__ = ["schedules"]

_NEXT_SHOWN: Final = 3
_RUNS_SHOWN: Final = 10


def _at(one: Mapping[str, Any]) -> str:
    return clock(datetime.fromisoformat(one["next_run"]), one["timezone"]) if one["next_run"] else "-"


_COLUMNS: Final[Columns] = {
    "NAME": "name",
    "EXPRESSION": "expression",
    "ZONE": "timezone",
    "TYPE": "type",
    "STATE": state_of,
    "NEXT": "next_run",
    "AT": _at,
    "LAST": "last_run",
    "SOURCE": "source",
}


class _Group(click.Group):
    def invoke(self, ctx: click.Context) -> Any:
        with suggesting(ctx.ensure_object(Cli)):
            return super().invoke(ctx)


@click.group(cls=_Group)
def schedules() -> None:
    """List, add, edit, pause or run schedules: cron lines that make jobs."""


schedules.add_command(add)
schedules.add_command(edit)


# Looking -------------------------------------------------------------------------------------------------------------------------------


@schedules.command("list")
@click.option("--state", type=click.Choice(STATES), help="Only those in this state.")
@click.option("--type", "job_type", metavar="TYPE", help="Only those that make jobs of this type.")
@click.option("--queue", metavar="NAME", help="Only those that name this queue.")
@click.pass_obj
def list_schedules(cli: Cli, *, state: str | None, job_type: str | None, queue: str | None) -> None:
    """List schedules by name, and when each is due next."""
    found = [one.to_dict() for one in cli.operations.schedules.all()]
    cli.show_list(
        [one for one in found if state in (None, state_of(one)) and job_type in (None, one["type"]) and queue in (None, one["queue"])], _COLUMNS
    )


@schedules.command()
@click.argument("name")
@click.pass_obj
def show(cli: Cli, name: str) -> None:
    """Show a schedule, its next three ticks and its latest runs."""
    schedule = cli.operations.schedules.get(name)
    try:
        ticks = cli.operations.schedules.next_runs(name, _NEXT_SHOWN)
    except (InvalidSchedule, PluginError) as error:
        # What it is stays worth seeing where its expression cannot be read.
        cli.note(f"warning: {error}")
        ticks = []
    runs = [one.to_dict() for one in cli.operations.schedules.runs(name, _RUNS_SHOWN)]
    fields = schedule.to_dict()
    if cli.as_json:
        cli.show(fields | {"next_runs": [tick_object(tick, schedule.timezone) for tick in ticks], "runs": runs})
        return
    next_runs = {str(number): on_both(tick, schedule.timezone) for number, tick in enumerate(ticks, start=1)}
    latest = {str(number): run_text(run) for number, run in enumerate(runs, start=1)}
    cli.show({"name": name, "state": state_of(fields)} | fields | {"next_runs": next_runs or None, "runs": latest or None})


@schedules.command("next")
@click.argument("name", required=False)
@click.option("-n", "--count", type=COUNT, default=10, show_default=True, help="So many.")
@click.option("--expression", metavar="TEXT", help="Of this expression, instead of a schedule that there is.")
@click.option("--timezone", metavar="ZONE", help="With --expression: by whose clocks; else UTC.")
@click.option("--start", type=INSTANT, help="With --expression: not before that time.")
@click.option("--end", type=INSTANT, help="With --expression: not after that time.")
@click.pass_obj
def next_ticks(cli: Cli, /, *, name: str | None, count: int, expression: str | None, **timing: str | datetime | None) -> None:
    """List the next ticks of a schedule or an expression.

    Each by the schedule's clocks and by yours; and since the one before, by how much clocks were put forward or back.
    """
    given: dict[str, Any] = {field: value for field, value in timing.items() if value is not None}
    if (name is None) == (expression is None):
        raise click.UsageError("give the name of a schedule, or --expression")
    if expression is not None:
        timezone = given.get("timezone", "UTC")
        ticks = cli.operations.schedules.preview(expression, count=count, **given)
    else:
        if given:
            raise click.UsageError("--timezone, --start and --end go with --expression, not with a name")
        schedule = cli.operations.schedules.get(str(name))
        timezone = schedule.timezone
        ticks = cli.operations.schedules.next_runs(schedule.name, count)
        if not schedule.fires:
            cli.hint(f"schedule {name} is {state_of(schedule.to_dict())}: this is when it would be due")
    if not ticks:
        cli.note("it is not due any more")
    changes = turns(ticks, timezone)
    columns: Columns = {
        "DUE": "at",
        timezone: lambda one: clock(datetime.fromisoformat(one["at"]), timezone),
        "HERE": lambda one: here(datetime.fromisoformat(one["at"])),
        "CLOCKS": lambda one: changes.get(one["at"], "-"),
    }
    cli.show_list([tick_object(tick, timezone) for tick in ticks], columns)


# Changing ------------------------------------------------------------------------------------------------------------------------------


@schedules.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.pass_obj
def pause(cli: Cli, names: tuple[str, ...]) -> None:
    """Fire nothing more until it is resumed; what runs goes on."""
    _each(cli, names, lambda name: (cli.operations.schedules.pause(name).to_dict(), f"schedule {name} is paused"))


@schedules.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.pass_obj
def resume(cli: Cli, names: tuple[str, ...]) -> None:
    """Fire again, from the next tick on; nothing is caught up."""

    def act(name: str) -> tuple[Mapping[str, Any], str]:
        schedule = cli.operations.schedules.resume(name)
        return schedule.to_dict(), f"schedule {name} is resumed: {due_text(schedule)}"

    _each(cli, names, act)


@schedules.command()
@click.argument("name")
@click.option("--wait", is_flag=True, help="Wait until the job has finished and show it; exit 1 unless it completed.")
@click.option("--wait-timeout", type=DURATION, help="How long to wait; implies --wait.")
@click.pass_obj
def run(cli: Cli, name: str, *, wait: bool, wait_timeout: timedelta | None) -> None:
    """Make a job of a schedule now, also of a paused one.

    To a pipe this prints the job's id and nothing else.
    """
    job = cli.operations.schedules.run(name)
    if wait or wait_timeout is not None:
        show_finished(cli, job.id, timeout=wait_timeout)
        return
    cli.answer(job.to_dict(), job.id)
    cli.hint(f"{job.type} is {job.state} in queue {job.queue} ({job.priority})")


@schedules.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def remove(cli: Cli, names: tuple[str, ...], *, yes: bool) -> None:
    """Delete a schedule; the jobs it has made stay."""

    def act(name: str) -> tuple[Mapping[str, Any], str]:
        cli.operations.schedules.remove(name)
        return {"name": name, "removed": True}, f"schedule {name} is removed"

    cli.confirm(f"Remove {f'schedule {names[0]}' if len(names) == 1 else counted(len(names), 'schedule')}?", yes=yes)
    _each(cli, names, act)


# Saying --------------------------------------------------------------------------------------------------------------------------------


def _each(cli: Cli, names: Sequence[str], act: Callable[[str], tuple[Mapping[str, Any], str]]) -> None:
    """Act on each name; what fails is said, and does not keep the others from being tried."""
    done: list[tuple[Mapping[str, Any], str]] = []
    for name in names:
        try:
            with suggesting(cli):
                done.append(act(name))
        except (JobNotFound, Conflict) as error:
            if len(names) == 1:
                raise
            failure = failure_of(error)
            if failure is not None:
                failure.show(as_json=cli.as_json)
    objects = [one for one, _text in done]
    if done or cli.as_json:
        cli.answer(objects[0] if len(names) == 1 else objects, "\n".join(text for _one, text in done))
    if len(done) < len(names):
        cli.fail()
