"""``python -m benchmarks``: see README.md in this folder."""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Callable
from contextlib import nullcontext
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import attrs

from . import api, drain, enqueue, middleware, pickup, queries, record, schedules, worker
from .options import Load, Options
from .servers import describe, server
from .tables import Results, show

_BENCHMARKS = ("middleware", "worker", "drain", "enqueue", "pickup")
_ALONE = {"middleware": middleware.run, "worker": worker.run}
"""What needs no server."""
_ON_A_DATABASE = {"record": record.run, "queries": queries.run}
_WHICH = "middleware, worker, drain, enqueue, pickup (none named: these); api, with wrk on the PATH; schedules; record and queries, with --database"
_LOADS = "async:10,async:100,thread:10,sleep:200,async+busy:10"


def main() -> None:
    """Run what the command line asks for."""
    given = _parser().parse_args()
    options = Options(
        broker=given.broker,
        url=given.url,
        jobs=given.jobs,
        repeats=given.repeats,
        loads=given.loads,
        thread_figures=given.threads,
        executions=given.executions,
    )
    wanted = given.benchmarks or list(_BENCHMARKS)
    if given.database is None and _ON_A_DATABASE.keys() & set(wanted):
        raise SystemExit("record and queries need --database postgresql://... (a schema of their own is made there, and dropped)")
    with server(options.broker, options.url) if set(wanted) - _ALONE.keys() else nullcontext("") as url:
        machine = _machine(url)
        results = [_run(name, options, url, given.database) for name in wanted]
    print("\n" + ", ".join(f"{name} {value}" for name, value in machine.items()))
    print(f"medians of {options.repeats} (smallest-largest); µs are CPU time a job")
    for one in results:
        show(one, thread_figures=options.thread_figures)
    if given.json is not None:
        given.json.write_text(json.dumps({"machine": machine, "results": [attrs.asdict(one) for one in results]}, indent=1) + "\n")


def _run(name: str, options: Options, url: str, database: str | None) -> Results:
    if name in _ON_A_DATABASE and database is not None:
        return _ON_A_DATABASE[name](options, database)
    if name in _ALONE:
        return _ALONE[name](options)
    if name == "schedules":
        return schedules.run(options, url, database)
    runs: dict[str, Callable[[Options, str], Results]] = {"drain": drain.run, "enqueue": enqueue.run, "pickup": pickup.run, "api": api.run}
    return runs[name](options, url)


def _machine(url: str) -> dict[str, str]:
    server = {"server": describe(url)} if url else {}
    found = {**server, "python": platform.python_version(), "cores": str(os.cpu_count()), "system": platform.platform(terse=True)}
    for package in ("redis", "hiredis", "psycopg", "msgspec", "attrs", "falcon", "gunicorn"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _loads(text: str) -> tuple[Load, ...]:
    return tuple(map(Load.parse, text.split(",")))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure jobqueue on this machine. Takes some minutes.")
    parser.add_argument("benchmarks", nargs="*", choices=[[], *_BENCHMARKS, "api", "schedules", *_ON_A_DATABASE], metavar="BENCHMARK", help=_WHICH)
    parser.add_argument("--broker", choices=("redis", "sqlite"), default="redis", help="which to start where --url gives none (default: redis)")
    parser.add_argument("--url", help="a server to use instead; only keys of a namespace of its own are written, and removed")
    parser.add_argument("--database", help="a PostgreSQL server, for record, queries and schedules")
    parser.add_argument(
        "--executions", type=int, default=5_000_000, help="in the history that is queried, and a 25th of it dead letters (default: 5000000)"
    )
    parser.add_argument("--jobs", type=int, default=40_000, help="in each run (default: 40000)")
    parser.add_argument("--repeats", type=int, default=5, help="of everything, in turns (default: 5)")
    parser.add_argument("--loads", type=_loads, default=_LOADS, help=f"handler:concurrency of async, thread, sleep (default: {_LOADS})")
    parser.add_argument("--threads", action="store_true", help="also show CPU time by thread, and batches")
    parser.add_argument("--json", type=Path, help="write every figure to this file")
    return parser


if __name__ == "__main__":
    main()
