"""``jobqueue stats``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from jobqueue_cli.session import Cli

__all__ = ["stats"]


@click.command()
@click.pass_obj
def stats(cli: Cli) -> None:
    """Show the whole in numbers: jobs now, executions of the last 24 hours, dead letters, how far history is behind."""
    figures = cli.operations.stats()
    cli.show(figures)
    if figures["storage_error"] is not None:
        cli.note(f"error: {figures['storage_error']}")
        cli.fail()
