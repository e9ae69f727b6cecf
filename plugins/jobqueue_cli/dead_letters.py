"""``jobqueue dlq``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from jobqueue_cli.failures import failure_of
from jobqueue_cli.pages import Page, collect
from jobqueue_cli.parameters import LIMIT, MOMENT, PAYLOAD, Payload
from jobqueue_cli.wording import counted
from jobqueue_core.attempt import DeadLetterState
from jobqueue_core.errors import Conflict, JobNotFound
from jobqueue_core.storage import DeadLetterFilter

if TYPE_CHECKING:
    from jobqueue_cli.rendering import Columns
    from jobqueue_cli.session import Cli
    from jobqueue_core.operations import BulkResult

__all__ = ["dlq"]

C = TypeVar("C", bound=Callable[..., object])

_COLUMNS: Final[Columns] = {
    "JOB": "job_id",
    "DEATH": "death",
    "TYPE": "type",
    "QUEUE": "queue",
    "STATE": "state",
    "REASON": "dead_reason",
    "DIED": "died_at",
    "ERROR": "error",
}
_GROUPS: Final[Columns] = {
    "FINGERPRINT": "fingerprint",
    "COUNT": "count",
    "TYPE": "type",
    "FIRST": "first_died_at",
    "LAST": "last_died_at",
    "EXAMPLE": "example_job_id",
    "ERROR": "example_error",
}

_SKIPPED: Final = {
    "retried": "acted on meanwhile, their unique key is taken, they could not be read, or the broker took too long",
    "discarded": "acted on meanwhile",
}
_REPEAT: Final = {
    "retried": "what was under way is settled within two minutes: then repeat the command for the rest",
    "discarded": "repeat the command for the rest",
}


def _filters(function: C) -> C:
    for option in (
        click.option("--until", type=MOMENT, metavar="TIME|AGO", help="Only of jobs that died then or earlier."),
        click.option("--since", type=MOMENT, metavar="TIME|AGO", help="Only of jobs that died then or later: a time, or how long ago (1h)."),
        click.option("--fingerprint", metavar="TEXT", help="Only of this group; see 'jobqueue dlq groups'."),
        click.option("--queue", metavar="NAME", help="Only of this queue."),
        click.option("--type", "job_type", metavar="TYPE", help="Only of this job type."),
    ):
        function = option(function)
    return function


@click.group()
def dlq() -> None:
    """List, retry or delete dead letters: jobs that will not be tried again by themselves."""


@dlq.command("list")
@_filters
@click.option(
    "--state", type=click.Choice([*(one.value for one in DeadLetterState), "all"]), default="open", show_default=True, help="In this state."
)
@click.option("--limit", type=LIMIT, default=50, show_default=True, help="At most so many.")
@click.pass_obj
def list_dead_letters(cli: Cli, /, *, state: str, limit: int, **narrowing: Any) -> None:
    """List dead letters, latest death first."""
    wanted = _wanted(cli, narrowing, state=None if state == "all" else DeadLetterState(state))

    def page(cursor: str | None, size: int) -> Page:
        found = cli.operations.dead_letters(wanted, cursor=cursor, limit=size)
        return Page(objects=[one.to_dict() for one in found.dead_letters], next=found.next)

    cli.show_list(collect(cli, page, limit), _COLUMNS)


@dlq.command()
@_filters
@click.option("--limit", type=click.IntRange(1, 500), default=50, show_default=True, help="At most so many.")
@click.pass_obj
def groups(cli: Cli, /, *, limit: int, **narrowing: Any) -> None:
    """List open dead letters by what went wrong, largest group first."""
    wanted = _wanted(cli, narrowing)
    cli.show_list([one.to_dict() for one in cli.operations.dead_letter_groups(wanted, limit=limit)], _GROUPS)


@dlq.command()
@click.argument("job_id", metavar="ID")
@click.pass_obj
def show(cli: Cli, job_id: str) -> None:
    """Show the latest death of a job."""
    cli.show(cli.operations.dead_letter(job_id).to_dict())


@dlq.command()
@click.argument("ids", nargs=-1, metavar="[ID]...")
@click.option("--all", "every", is_flag=True, help="All that are open now, instead of ids.")
@_filters
@click.option("--payload", type=PAYLOAD, metavar="JSON|@FILE|-", help="Another payload for it; with one id only.")
@click.option("--dry-run", is_flag=True, help="With --all: only say how many.")
@click.pass_obj
def retry(cli: Cli, /, ids: tuple[str, ...], *, every: bool, payload: Payload | None, dry_run: bool, **narrowing: Any) -> None:
    """Make dead jobs live again, by id or all that match."""
    wanted = _chosen(cli, ids, every=every, dry_run=dry_run, narrowing=narrowing)
    if payload is not None and len(ids) != 1:
        raise click.UsageError("--payload goes with one id")
    if wanted is None:
        replaced = {} if payload is None else {"payload": payload.value}
        _each(cli, ids, lambda job_id: cli.operations.retry_dead_letter(job_id, **replaced).to_dict(), "job {} lives again")
        return
    _in_bulk(cli, cli.operations.retry_dead_letters, wanted, dry_run=dry_run, doing="retrying", done="retried")


@dlq.command()
@click.argument("ids", nargs=-1, metavar="[ID]...")
@click.option("--all", "every", is_flag=True, help="All that are open now, instead of ids.")
@_filters
@click.option("--dry-run", is_flag=True, help="With --all: only say how many.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def delete(cli: Cli, /, ids: tuple[str, ...], *, every: bool, dry_run: bool, yes: bool, **narrowing: Any) -> None:
    """Discard dead letters, by id or all that match: they are not listed or retried any more."""
    wanted = _chosen(cli, ids, every=every, dry_run=dry_run, narrowing=narrowing)
    if wanted is None:
        cli.confirm(f"Discard {counted(len(ids), 'dead letter')}?", yes=yes)
        _each(cli, ids, lambda job_id: _discard(cli, job_id), "dead letter of job {} is discarded")
        return
    if not dry_run:
        matched = cli.operations.discard_dead_letters(wanted, dry_run=True).matched
        cli.confirm(f"Discard {counted(matched, 'dead letter')}?", yes=yes)
    _in_bulk(cli, cli.operations.discard_dead_letters, wanted, dry_run=dry_run, doing="discarding", done="discarded")


def _wanted(cli: Cli, narrowing: Mapping[str, Any], *, state: DeadLetterState | None = DeadLetterState.OPEN) -> DeadLetterFilter:
    """What the options of :func:`_filters` choose."""
    return DeadLetterFilter(
        type=narrowing["job_type"],
        queue=narrowing["queue"],
        fingerprint=narrowing["fingerprint"],
        died_after=cli.moment(narrowing["since"]),
        died_before=cli.moment(narrowing["until"]),
        state=state,
    )


def _chosen(cli: Cli, ids: Sequence[str], *, every: bool, dry_run: bool, narrowing: Mapping[str, Any]) -> DeadLetterFilter | None:
    """The filter of a bulk action; None when ids were given.

    Raises:
        click.UsageError: Neither or both, or options that go with the other.
    """
    if bool(ids) == every:
        raise click.UsageError("give ids, or --all with --type, --queue, --fingerprint, --since and --until to narrow it")
    if every:
        return _wanted(cli, narrowing)
    if dry_run or any(value is not None for value in narrowing.values()):
        raise click.UsageError("--type, --queue, --fingerprint, --since, --until and --dry-run go with --all, not with ids")
    return None


def _each(cli: Cli, ids: Sequence[str], act: Callable[[str], Mapping[str, Any]], done: str) -> None:
    """Act on each id; what fails is said, and does not keep the others from being tried."""
    answers: list[Mapping[str, Any]] = []
    for job_id in ids:
        try:
            answers.append(act(job_id))
        except (JobNotFound, Conflict) as error:
            if len(ids) == 1:
                raise
            failure = failure_of(error)
            if failure is not None:
                failure.show(as_json=cli.as_json)
    shown = answers[0] if len(ids) == 1 else answers
    if answers or cli.as_json:
        cli.answer(shown, "\n".join(done.format(one.get("job_id") or one["id"]) for one in answers))
    if len(answers) < len(ids):
        cli.fail()


def _discard(cli: Cli, job_id: str) -> Mapping[str, Any]:
    cli.operations.discard_dead_letter(job_id)
    return cli.operations.dead_letter(job_id).to_dict()


def _in_bulk(cli: Cli, act: Callable[..., BulkResult], wanted: DeadLetterFilter, *, dry_run: bool, doing: str, done: str) -> None:
    """Act in steps, show how far it has come, and say so too when it is broken off."""
    latest: BulkResult | None = None

    def step(result: BulkResult) -> None:
        nonlocal latest
        latest = result
        update(result.done + result.skipped, result.matched)

    try:
        with cli.progress(f"{doing} dead letters") as update:
            result = act(wanted, dry_run=dry_run, progress=step)
    except BaseException:
        # Nothing was begun when there is no step yet: then there is nothing to say but what went wrong.
        if latest is not None:
            cli.note(f"{done} {latest.done} of {counted(latest.matched, 'dead letter')} before it was broken off; {_REPEAT[done]}")
        raise
    cli.answer(result.to_dict(), _bulk_text(result, done))


def _bulk_text(result: BulkResult, verb: str) -> str:
    if result.dry_run:
        return f"{counted(result.matched, 'dead letter')} would be {verb}"
    rest = result.matched - result.done - result.skipped
    others = f"; {rest} were not open any more when it was their turn" if rest > 0 else ""
    skipped = f", skipped {result.skipped} ({_SKIPPED[verb]})" if result.skipped else ""
    return f"{verb} {result.done} of {counted(result.matched, 'dead letter')}{skipped}{others}"
