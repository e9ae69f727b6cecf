"""``jobqueue migrate``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import click

from jobqueue_core.errors import PluginError

from .plugin import has_driver

__all__ = ["migrate"]

_COLUMNS: Final[Mapping[str, str]] = {"MIGRATION": "migration", "STATE": "state", "APPLIED": "applied_at"}


def _version(_ctx: click.Context, _parameter: click.Parameter, value: str | None) -> int | None:
    if value is None:
        return None
    if not (value.isascii() and value.isdecimal() and len(value) <= 4):
        raise click.BadParameter(f"{value!r} is no version: up to four digits, as 0001; 0 undoes everything")
    return int(value)


@click.command()
@click.option("--status", is_flag=True, help="List the migrations, and which are applied.")
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@click.option("--down", is_flag=True, help="Undo the latest one.")
@click.option("--to", "target", metavar="NNNN", callback=_version, help="Go to this version, up or down.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def migrate(cli: Any, *, status: bool, dry_run: bool, down: bool, target: int | None, yes: bool) -> None:
    """Make or change the schema of a PostgreSQL storage: apply what is pending."""
    if status and (dry_run or down or target is not None or yes):
        raise click.UsageError("--status goes with no other option")
    if down and target is not None:
        raise click.UsageError("give --down or --to, not both")
    settings = cli.app.settings
    if settings.storage.plugin != "postgres":
        cli.answer(
            [], f"the storage is {settings.storage.plugin!r}, which needs no migrations by hand: it brings its schema up to date when it is opened"
        )
        return
    if not has_driver():
        raise PluginError("needs the extra 'postgres': pip install 'jobqueue[postgres]'", plugin="postgres")
    place = _Place(settings.storage.migrate_url or settings.storage.url, settings.run.namespace)
    if status:
        cli.show_list(place.status(), _COLUMNS)
    elif dry_run:
        steps = place.plan(down=down, target=target)
        cli.answer(steps, "\n".join(f"would {_verb(one)} {one['migration']}" for one in steps) or "nothing to do")
    else:
        _go(cli, place, down=down, target=target, yes=yes)


def _go(cli: Any, place: _Place, *, down: bool, target: int | None, yes: bool) -> None:
    steps = place.plan(down=down, target=target)
    if down and not steps:
        cli.answer([], "nothing to undo")
        return
    undone = [one["migration"] for one in steps if one["direction"] == "down"]
    if undone:
        cli.confirm(f"Undo {', '.join(undone)}, with all that is in its tables?", yes=yes)
        target = int(undone[-1][:4]) - 1
    taken = place.go(target, say=lambda one: cli.note(f"{'undoing' if one.direction == 'down' else 'applying'} {one.migration.label}"))
    cli.answer(
        taken, "\n".join(f"{_verb(one, done=True)} {one['migration']}" for one in taken) or "nothing to do: the schema is what this release needs"
    )


def _verb(step: Mapping[str, Any], *, done: bool = False) -> str:
    if step["direction"] == "up":
        return "applied" if done else "apply"
    return "undid" if done else "undo"


class _Place:
    """The database, and what can be asked of it. The driver is imported when it is asked."""

    def __init__(self, url: str, namespace: str) -> None:
        self._url = url
        self._namespace = namespace

    def status(self) -> list[dict[str, Any]]:
        from jobqueue_core.job import rfc3339

        from . import migrating
        from .migrations_on_disk import bundled

        applied = {one.version: one for one in migrating.status(self._url, namespace=self._namespace)}
        known = bundled()
        rows = []
        for version in sorted({*applied, *known}):
            here, there = known.get(version), applied.get(version)
            if there is None:
                state = "pending"
            elif here is None:
                state = "unknown"
            else:
                state = "applied" if here.checksum == there.checksum else "changed"
            label = there.label if there is not None else known[version].label
            rows.append({"version": version, "migration": label, "state": state, "applied_at": None if there is None else rfc3339(there.at)})
        return rows

    def plan(self, *, down: bool, target: int | None) -> list[dict[str, Any]]:
        from . import migrating

        if down:
            applied = migrating.status(self._url, namespace=self._namespace)
            if not applied:
                return []
            target = applied[-1].version - 1
        return _shown(migrating.plan(self._url, namespace=self._namespace, target=target), sql=True)

    def go(self, target: int | None, *, say: Any) -> list[dict[str, Any]]:
        from . import migrating

        return _shown(migrating.migrate(self._url, namespace=self._namespace, target=target, say=say))


def _shown(steps: Sequence[Any], *, sql: bool = False) -> list[dict[str, Any]]:
    return [{"direction": one.direction, "migration": one.migration.label, **({"sql": one.text} if sql else {})} for one in steps]
