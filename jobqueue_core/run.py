"""``jobqueue-run``: the command that runs roles.

What takes long to import is imported after the command line has been read: ``--version`` and wrong arguments are answered at once.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from jobqueue_core._version import __version__

if TYPE_CHECKING:
    from jobqueue_core.plugins import Plugins

__all__ = ["main"]

_FLAGS: Final = {"queues": "worker.queues", "concurrency": "worker.concurrency", "processes": "worker.processes"}
_FLAGS_HELP: Final = {
    "queues": "queues to serve, separated by commas, most urgent first",
    "concurrency": "how many jobs a worker process runs at once",
    "processes": "how many worker processes to run",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    given = _parser().parse_args(arguments)
    if not given.check:
        # What is sent while the rest is imported waits until somebody listens.
        signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT))
    from jobqueue_core.supervision import starting

    wanted = starting.Wanted(roles=tuple(given.roles), config=given.config, overrides=_overrides(given))
    return starting.check(wanted) if given.check else starting.start(wanted)


def _overrides(given: argparse.Namespace) -> tuple[str, ...]:
    flags = []
    for flag, key in _FLAGS.items():
        value = getattr(given, flag)
        if value is not None:
            written = json.dumps([one.strip() for one in value.split(",")], ensure_ascii=False) if flag == "queues" else value
            flags.append(f"{key}={written}")
    return (*flags, *given.set)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="jobqueue-run",
        description="Run roles, each in processes of its own, and start anew what dies.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        add_help=False,
        allow_abbrev=False,
    )
    parser.add_argument("roles", nargs="*", metavar="ROLE", help="what to run; none given: [run] roles, else those marked * below")
    parser.add_argument("-c", "--config", type=Path, metavar="FILE", help="the config file; not given: JOBQUEUE_CONFIG, else the embedded default")
    parser.add_argument("--check", action="store_true", help="check settings, plugins, handlers and roles, say what would run, and exit")
    for flag in _FLAGS:
        parser.add_argument(f"--{flag}", metavar="LIST" if flag == "queues" else "N", help=_FLAGS_HELP[flag])
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="any setting, over environment and file; repeatable")
    parser.add_argument("--version", action="version", version=f"jobqueue {__version__}")
    parser.add_argument("-h", "--help", action=_Help, nargs=0, help="show this message and exit")
    return parser


class _Help(argparse.Action):
    """Shows the help, with the roles that are installed."""

    def __call__(self, parser: argparse.ArgumentParser, *_rest: object) -> None:
        from jobqueue_core.plugins import Plugins

        plugins = Plugins.load()
        parser.epilog = f"roles:\n{_roles(plugins)}"
        parser.print_help()
        parser.exit()


def _roles(plugins: Plugins) -> str:
    shown = [one for one in plugins.services().values() if not one.internal]
    return "\n".join(f"  {one.name:<20}  {one.summary}{' *' if one.by_default else ''}" for one in shown)


if __name__ == "__main__":
    sys.exit(main())
