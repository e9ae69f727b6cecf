"""A host's clock that a test can set, for the processes that it starts: a library in front of the C one answers for it, below Python."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

import attrs

__all__ = ["ShiftedClock", "build_library"]

_SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>

static volatile const long long *shift;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("CLOCK_SHIFT");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    void *page = file < 0 ? MAP_FAILED : mmap(0, sizeof *shift, PROT_READ, MAP_SHARED, file, 0);
    if (page == MAP_FAILED) abort();
    shift = page;
}

int clock_gettime(clockid_t which, struct timespec *at) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int answer = real(which, at);
    if (!answer && (which == CLOCK_REALTIME || which == CLOCK_REALTIME_COARSE) && shift) at->tv_sec += *shift;
    return answer;
}

int gettimeofday(struct timeval *at, void *zone) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    at->tv_sec = now.tv_sec;
    at->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *at) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (at) *at = now.tv_sec;
    return now.tv_sec;
}
"""


@attrs.frozen
class ShiftedClock:
    """A host's clock, so many seconds from the true one."""

    path: Path
    shim: Path

    @property
    def environ(self) -> dict[str, str]:
        """What a process on that host has in its environment."""
        return {"LD_PRELOAD": str(self.shim), "CLOCK_SHIFT": str(self.path)}

    def set(self, seconds: int) -> None:
        """Set it, also under the processes that run."""
        if not self.path.exists():
            self.path.write_bytes(struct.pack("q", 0))
        with self.path.open("r+b") as file:
            file.write(struct.pack("q", seconds))


def build_library(folder: Path) -> Path:
    """Make the library.

    Raises:
        LookupError: There is no C compiler.
    """
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise LookupError("no C compiler to shift a clock with")
    (folder / "clock.c").write_text(_SOURCE)
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", "clock.so", "clock.c", "-ldl"], cwd=folder, check=True, timeout=60)
    return folder / "clock.so"
