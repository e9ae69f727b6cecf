"""Every measurement runs in a fresh process, which prints one line of JSON at its end."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Self

__all__ = ["Child", "measure"]

_ROOT = Path(__file__).parents[1]


class Child:
    """A process that runs one function of this package: ``Child("drain.drain", url=..., jobs=...)``."""

    def __init__(self, task: str, **arguments: Any) -> None:
        path = os.pathsep.join([str(_ROOT), str(_ROOT / "plugins"), os.environ.get("PYTHONPATH", "")])
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.children", task, json.dumps(arguments)],
            env={**os.environ, "PYTHONPATH": path},
            stdout=subprocess.PIPE,
            text=True,
        )

    def line(self) -> str:
        """The next line it prints."""
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def result(self) -> dict[str, float]:
        """Its figures."""
        output, _ = self._process.communicate()
        if self._process.returncode:
            msg = f"a benchmark's process ended with status {self._process.returncode}"
            raise SystemExit(msg)
        figures: dict[str, float] = json.loads(output.splitlines()[-1])
        return figures

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()


def measure(task: str, **arguments: Any) -> dict[str, float]:
    """Run a task in a child and return its figures."""
    with Child(task, **arguments) as child:
        return child.result()


def main() -> None:
    """Run the task that the command line names."""
    task, arguments = sys.argv[1:]
    module, _, function = task.partition(".")
    figures = getattr(importlib.import_module(f"benchmarks.{module}"), function)(**json.loads(arguments))
    print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    main()
