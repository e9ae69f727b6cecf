"""``jobqueue doctor``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final, NoReturn

import click

from jobqueue_cli.probes import probe
from jobqueue_cli.session import without_warnings
from jobqueue_core.checks import Finding
from jobqueue_core.errors import BrokerUnavailable, JobQueueError

if TYPE_CHECKING:
    from jobqueue_cli.rendering import Columns
    from jobqueue_cli.session import Cli
    from jobqueue_core.app import App
    from jobqueue_core.checks import Check

__all__ = ["doctor"]

_COLUMNS: Final[Columns] = {
    "": lambda one: "fixed" if one["fixed"] else one["level"],
    "CHECK": "check",
    "FINDING": "text",
    "REMEDY": lambda one: one["remedy"] or "",
}


@click.command()
@click.option("--fix", is_flag=True, help="Repair what is safe to repair.")
@click.option("--worker", is_flag=True, help="Only look whether the workers of this host beat and take jobs: a container's readiness.")
@click.option(
    "--live", is_flag=True, help="With --worker: only what a restart may mend, so a broker that is away is no error: a container's liveness."
)
@click.pass_obj
def doctor(cli: Cli, *, fix: bool, worker: bool, live: bool) -> None:
    """Look for what is wrong, and what to do about it; exit 1 when something must be done."""
    if live and not worker:
        msg = "--live goes with --worker."
        raise click.UsageError(msg)
    app = cli.app
    checks = [probe(live=live)] if worker else app.plugins.checks(app.settings)
    with without_warnings():
        findings = [(check.name, finding) for check, found in _examine_all(checks, app, fix=fix) for finding in found]
    cli.show_list([_described(name, finding) for name, finding in findings], _COLUMNS)
    if any(finding.level == "error" and not finding.fixed for _name, finding in findings):
        cli.fail()


class _WithoutBroker:
    """The app once its broker has been found away: to ask it again would take each check five seconds, to hear the same."""

    def __init__(self, app: App, error: BrokerUnavailable) -> None:
        self._app = app
        self._error = error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._app, name)

    @property
    def broker(self) -> NoReturn:
        """Not to be had."""
        raise self._error


def _examine_all(checks: Iterable[Check], app: App, *, fix: bool) -> Iterator[tuple[Check, list[Finding]]]:
    seen: Any = app
    said: set[str] = set()
    for check in checks:
        try:
            found = _examine(check, seen, fix=fix)
        except BrokerUnavailable as error:
            seen = _WithoutBroker(app, error)
            found = [Finding(level="error", text=str(error))]
        # Of a storage that is away each check that asks it would say the same.
        yield check, [one for one in found if one.level != "error" or one.text not in said]
        said.update(one.text for one in found)


def _examine(check: Check, app: App, *, fix: bool) -> list[Finding]:
    try:
        return check.run(app, fix)
    except BrokerUnavailable:
        raise
    except JobQueueError as error:
        return [Finding(level="error", text=str(error))]
    except Exception as error:  # noqa: BLE001 - a third party's check: one that breaks is a finding
        return [Finding(level="error", text=f"the check itself broke: {type(error).__name__}: {error}")]


def _described(name: str, finding: Finding) -> dict[str, Any]:
    return {"check": name, **finding.to_dict()}
