"""Starting another interpreter that finds the same modules as this one."""

from __future__ import annotations

import os
import sys

__all__ = ["module_command"]


def module_command(module: str) -> list[str]:
    """The command that runs *module* with this interpreter.

    ``-m`` would put the current folder first on the path; that is right only where it is on ours.
    """
    here = {"", os.getcwd()}  # noqa: PTH109 - compared with texts
    return [sys.executable, *([] if here & set(sys.path) else ["-P"]), "-m", module]
