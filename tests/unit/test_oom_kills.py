"""Whether a death by SIGKILL was one for want of memory: what the kernel's count says, read from files as it writes them."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from cgroups import small_cgroup

from jobqueue_core.supervision import oomkills
from jobqueue_core.supervision.oomkills import OomKills, killed_by

V1 = "4:memory:/app\n3:cpuset:/\n0::/\n"
V2 = "0::/app\n"


class Kernel:
    """A cgroup's files."""

    def __init__(self, folder: Path) -> None:
        self.membership = folder / "cgroup"
        self.cgroups = folder / "mounted"
        self.cgroups.mkdir()

    def says(self, place: str, count: int | None) -> None:
        file = self.cgroups / place
        file.parent.mkdir(parents=True, exist_ok=True)
        lines = ["low 0", "high 0", "max 3", "oom 1"] if file.name == "memory.events" else ["oom_kill_disable 0", "under_oom 0"]
        file.write_text("\n".join([*lines, *([] if count is None else [f"oom_kill {count}"])]) + "\n")

    def watched(self) -> OomKills:
        return OomKills(self.membership, self.cgroups)


@pytest.fixture
def kernel(tmp_path: Path) -> Kernel:
    return Kernel(tmp_path)


@pytest.mark.parametrize(
    ("membership", "place"),
    [
        (V2, "app/memory.events"),
        (V2, "memory.events"),  # in a container: what is mounted is our own, under a path of the host's
        (V1, "memory/app/memory.oom_control"),
        (V1, "memory/memory.oom_control"),
        ("7:cpu,memory:/app\n", "cpu,memory/app/memory.oom_control"),
        ("0::/app\n", "unified/app/memory.events"),
    ],
)
def test_a_count_that_has_grown_explains_one_death(kernel: Kernel, membership: str, place: str) -> None:
    kernel.membership.write_text(membership)
    kernel.says(place, 2)
    kills = kernel.watched()

    assert kills.explain() is False
    kernel.says(place, 3)
    assert kills.explain() is True
    assert kills.explain() is False, "one kill explains one death"
    kernel.says(place, 5)
    assert [kills.explain(), kills.explain(), kills.explain()] == [True, True, False]


def test_the_cgroup_itself_counts_before_what_lies_above_it(kernel: Kernel) -> None:
    kernel.membership.write_text(V2)
    kernel.says("memory.events", 1)
    kernel.says("app/memory.events", 0)
    kills = kernel.watched()
    kernel.says("memory.events", 2)

    assert kills.explain() is False


@pytest.mark.parametrize("membership", [None, "", V1, V2, "nonsense\n"])
def test_nobody_can_tell_where_the_kernel_does_not_count(kernel: Kernel, membership: str | None) -> None:
    if membership is not None:
        kernel.membership.write_text(membership)
    kernel.says("app/memory.events", None)

    assert kernel.watched().explain() is None
    assert kernel.watched().next_look is None


def test_nobody_can_tell_once_the_count_is_gone(kernel: Kernel) -> None:
    kernel.membership.write_text(V2)
    kernel.says("app/memory.events", 0)
    kills = kernel.watched()
    (kernel.cgroups / "app/memory.events").unlink()

    assert kills.explain() is None


def test_a_kill_of_long_ago_explains_no_death(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(oomkills, "monotonic", lambda: now)
    kernel.membership.write_text(V2)
    kernel.says("app/memory.events", 0)
    kills = kernel.watched()

    kernel.says("app/memory.events", 1)  # of a program that a handler had started
    now += 10.5
    kills.look()
    assert kills.explain() is True, "the process may take a while to die"
    kernel.says("app/memory.events", 2)
    for _ in range(2):
        now += 10.5
        kills.look()
    assert kills.explain() is False
    kernel.says("app/memory.events", 3)
    assert kills.explain() is True


@pytest.mark.parametrize(
    ("number", "facts", "text"),
    [
        (signal.SIGKILL, {"out_of_memory": True}, "killed by SIGKILL: out of memory"),
        (signal.SIGKILL, {"out_of_memory": False}, "killed by SIGKILL: by somebody, not for want of memory"),
        (signal.SIGKILL, {}, "killed by SIGKILL: perhaps out of memory"),
        (signal.SIGSEGV, {}, "killed by SIGSEGV"),
        (signal.SIGABRT, {"core_dumped": True}, "killed by SIGABRT (core dumped)"),
        (63, {}, "killed by signal 63"),
    ],
)
def test_a_death_is_told_as_exactly_as_it_is_known(number: int, facts: dict[str, bool], text: str) -> None:
    assert killed_by(number, **facts) == text


# With the real kernel ------------------------------------------------------------------------------------------------------------------

SCRIPT = """
import os, subprocess, sys
from pathlib import Path
from jobqueue_core.supervision.oomkills import OomKills

Path(sys.argv[1], "cgroup.procs").write_text(str(os.getpid()))
kills = OomKills()
def dies(code):
    return subprocess.run([sys.executable, "-c", code]).returncode, kills.explain()
print(dies("import os; os.kill(os.getpid(), 9)"), dies("bytearray(1 << 30)"), dies("import os; os.kill(os.getpid(), 9)"))
"""


def test_the_kernels_own_kill_is_told_from_one_by_hand() -> None:
    with small_cgroup(64 << 20) as cgroup:
        done = subprocess.run([sys.executable, "-c", SCRIPT, str(cgroup)], capture_output=True, text=True, timeout=60, check=True)

    assert done.stdout == "(-9, False) (-9, True) (-9, False)\n", done.stderr
