"""What ``conftest.py`` installs for each test: roles and a broker that note what happens to them in the folder ``DUMMY_HOME``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from jobqueue_core import BrokerUnavailable, PluginError, hookimpl
from jobqueue_core.broker import BrokerPlugin, Reclaimed
from jobqueue_core.service import Exit, ServicePlugin, Stop, StopLevel

if TYPE_CHECKING:
    from jobqueue_core.app import App

HOME: Final = Path(os.environ["DUMMY_HOME"])
JOB: Final = "0192f0c4-7a3b-7def-8abc-000000000001"
"""What the role ``busy`` says it is running."""


def note(event: str, **facts: object) -> None:
    with (HOME / "notes").open("a") as file:
        file.write(json.dumps({"event": event, "pid": os.getpid(), **facts}) + "\n")


class Dummy:
    """Notes what happens to it, and behaves as a file named after its role says."""

    def __init__(self, name: str, app: App) -> None:
        self.name, self.app = name, app
        behaviour = HOME / name
        self.behaviour = behaviour.read_text() if behaviour.exists() else ""
        if self.behaviour == "unusable":
            raise PluginError("it lacks its driver; install jobqueue[dummy]", plugin="dummy")
        if self.behaviour == "away":
            raise BrokerUnavailable("nobody answers")

    def first(self) -> bool:
        """Whether this is the first process of its role."""
        try:
            (HOME / f"{self.name}.first").touch(exist_ok=False)
        except FileExistsError:
            return False
        return True

    def wait(self, stop: Stop, level: StopLevel) -> None:
        stop.wait(level=level)
        note("level", role=self.name, level=int(level))

    def reload(self) -> None:
        note("reload", role=self.name)

    def run(self, stop: Stop) -> Exit:
        self.come_up()
        match self.behaviour:
            case "breaks":
                raise RuntimeError("the service broke")
            case "exits" if self.first():
                os._exit(int((HOME / "status").read_text()))
            case "recycles" if self.first():
                return Exit.RECYCLE
            case "orphans":
                # The shell ends before what it started: that becomes the child of whoever buries orphans here.
                shell = subprocess.run(["sh", "-c", "sleep 0.1 >/dev/null & echo $!"], stdout=subprocess.PIPE, text=True, check=True)
                note("orphan", orphan=int(shell.stdout))
            case "speaks":
                sys.stdout.write("protocol\n")
        self.wait(stop, StopLevel.GRACEFUL)
        match self.behaviour:
            case "hangs":
                self.wait(stop, StopLevel.AT_ONCE)
                threading.Event().wait()
            case "patient":
                self.wait(stop, StopLevel.AT_ONCE)
                return Exit.AT_ONCE
            case "abandons":
                return Exit.ABANDONED
        note("down", role=self.name)
        return Exit.OK

    def come_up(self) -> None:
        supervision = self.app.process
        if supervision is not None and supervision.table is not None and self.name == "busy":
            supervision.table.set(0, JOB)
        worker = None if supervision is None else supervision.worker_id
        note("up", role=self.name, worker=worker, concurrency=self.app.settings.worker.concurrency)


class NotedBroker:
    """Notes what is taken back; does not answer the first time while a file ``away`` is there."""

    PROTOCOL = 1

    def reclaim_worker(self, worker_id: str, *, started: Collection[str], error: str, max_crashes: int) -> Reclaimed:
        note("reclaim", worker=worker_id, started=sorted(started), error=error, max_crashes=max_crashes)
        away = HOME / "away"
        if away.exists():
            away.unlink()
            raise BrokerUnavailable("nobody answers")
        return Reclaimed(requeued=1)

    def close(self) -> None:
        note("closed")


def role(name: str, **facts: Any) -> ServicePlugin:
    return ServicePlugin(name=name, summary="a dummy", open=lambda app: Dummy(name, app), **facts)


@hookimpl
def jobqueue_services() -> Iterable[ServicePlugin]:
    return [
        role("plain"),
        role("busy", runs_handlers=True, processes=lambda settings: settings.worker.processes),
        role("reloading", reloads=True),
        role("inner", internal=True),
        role("front", foreground=lambda _settings: True),
    ]


@hookimpl
def jobqueue_brokers() -> Iterable[BrokerPlugin]:
    return [BrokerPlugin(name="noted", open=lambda _settings: NotedBroker(), default_url="noted://here", schemes=("noted",))]
