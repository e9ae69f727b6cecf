"""What ``jobqueue doctor`` looks at in a SQLite file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from jobqueue_core.checks import Check, Finding

from . import audit
from .broker import SqliteBroker
from .storage import SqliteStorage

if TYPE_CHECKING:
    from jobqueue_core.app import App

    from .database import Database

__all__ = ["checks"]

_NETWORK: Final = ("nfs", "cifs", "smb", "9p", "afs", "ceph", "gluster", "lustre", "fuse.sshfs")
"""How the names of file systems begin on which SQLite's locks cannot be trusted."""


def checks() -> list[Check]:
    """All checks of this plugin."""
    return [
        Check(name="sqlite file", run=_check_files),
        Check(name="sqlite counters", run=_check_counters),
        Check(name="sqlite jobs", run=_check_jobs),
    ]


def _check_files(app: App, _fix: bool) -> list[Finding]:  # noqa: FBT001 - the signature of Check.run
    findings = []
    for path, database in _databases(app).items():
        with database.read() as connection:
            damage = audit.integrity(connection)
        if damage:
            remedy = f"stop everything that uses it and put a backup in its place, or try: sqlite3 {path} .recover"
            findings.append(Finding(level="error", text=f"{path} is damaged: {damage[0]}", remedy=remedy))
        elif (kind := file_system(path)).startswith(_NETWORK):
            findings.append(
                Finding(level="warning", text=f"{path} lies on {kind}", remedy="move it to a local disk: SQLite needs locks that can be trusted")
            )
        else:
            findings.append(Finding(level="ok", text=f"{path} is sound"))
    return findings


def _check_counters(app: App, fix: bool) -> list[Finding]:  # noqa: FBT001 - the signature of Check.run
    if not isinstance(app.broker, SqliteBroker):
        return []
    with app.broker.database.write() as connection:
        wrong = audit.drift(connection)
        if wrong and fix:
            audit.repair(connection)
    if not wrong:
        return [Finding(level="ok", text="all counters are right")]
    remedy = None if fix else "run: jobqueue doctor --fix"
    return [Finding(level="error", text=f"{one.name} says {one.kept}, counted are {one.counted}", remedy=remedy, fixed=fix) for one in wrong]


def _check_jobs(app: App, _fix: bool) -> list[Finding]:  # noqa: FBT001 - the signature of Check.run
    if not isinstance(app.broker, SqliteBroker):
        return []
    with app.broker.database.read() as connection:
        lost = audit.astray(connection)
    remedy = "cancel it, or enqueue it again under another id"
    return [Finding(level="error", text=f"job {job_id} is {state}, but stands in no list", remedy=remedy) for job_id, state in lost] or [
        Finding(level="ok", text="all jobs are where their state says")
    ]


def _databases(app: App) -> dict[Path, Database]:
    parts = (app.broker, app.storage)
    return {part.database.path: part.database for part in parts if isinstance(part, (SqliteBroker, SqliteStorage))}


def file_system(path: Path) -> str:
    """The type of the file system that *path* lies on; empty where it cannot be told."""
    try:
        mounts = Path("/proc/self/mounts").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    found = [(fields[1], fields[2]) for fields in map(str.split, mounts.splitlines()) if len(fields) > 2 and path.is_relative_to(fields[1])]
    return max(found, key=lambda mount: len(mount[0]), default=("", ""))[1]
