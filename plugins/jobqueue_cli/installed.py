"""``jobqueue plugins`` and ``jobqueue handlers``: what is installed here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click

from jobqueue_core.durations import format_duration

if TYPE_CHECKING:
    from jobqueue_cli.rendering import Columns
    from jobqueue_cli.session import Cli
    from jobqueue_core.handlers import HandlerSpec

__all__ = ["handlers", "plugins"]

_PLUGINS: Final[Columns] = {
    "NAME": "name",
    "KIND": "kind",
    "STATUS": "status",
    "DISTRIBUTION": lambda one: " ".join(one[part] for part in ("distribution", "version") if one[part]) or "-",
    "OFFERS": lambda one: ", ".join(one["offers"]),
    "WHY": "why",
}
_HANDLERS: Final[Columns] = {
    "TYPE": "type",
    "QUEUE": "queue",
    "PRIORITY": "priority",
    "RETRIES": "max_retries",
    "TIMEOUT": "timeout",
    "RUNS AS": "isolation",
    "ORIGIN": "origin",
    "DESCRIPTION": "description",
}


@click.command()
@click.pass_obj
def plugins(cli: Cli) -> None:
    """List plugins and handler packages: what each offers, whether it is in use, and what is wrong with it."""
    from jobqueue_core.plugins.inventory import inventory

    cli.show_list([one.to_dict() for one in inventory(cli.app.plugins, cli.app.settings)], _PLUGINS)


@click.command()
@click.pass_obj
def handlers(cli: Cli) -> None:
    """List the job handlers that are installed here, with what their decorators say; a dash leaves it to the configuration."""
    cli.show_list([_described(one) for one in cli.app.registry], _HANDLERS)


def _described(spec: HandlerSpec) -> dict[str, Any]:
    options = spec.options
    return {
        "type": spec.type,
        "aliases": list(options.aliases),
        "queue": options.queue,
        "priority": None if options.priority is None else options.priority.value,
        "max_retries": options.max_retries,
        "timeout": None if options.timeout is None else format_duration(options.timeout),
        "isolation": spec.isolation,
        "concurrency": options.concurrency,
        "description": spec.description,
        "payload_schema": spec.payload_schema(),
        "origin": spec.origin,
    }
