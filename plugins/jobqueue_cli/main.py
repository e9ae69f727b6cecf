"""The console script. It imports nothing of the extra ``cli`` until it knows that it is there."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from typing import Final

__all__ = ["main"]

_MISSING: Final = "the command 'jobqueue' needs the extra 'cli': pip install 'jobqueue[cli]'"


def main() -> None:
    """Run ``jobqueue`` with the process's arguments and exit: 0 ok, 1 what was asked failed, 2 usage or configuration."""
    _prepare_streams()
    try:
        from jobqueue_cli.root import installed_root
    except ModuleNotFoundError as error:
        if error.name != "click":
            raise
        sys.stderr.write(_MISSING + "\n")
        sys.exit(2)
    installed_root().main(prog_name="jobqueue")


def _prepare_streams() -> None:
    # Python has no object for a stream that its parent has closed, as some init systems do.
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w" if number else "r", encoding="utf-8"))  # noqa: SIM115 - for the rest of the process
    # A character that the terminal's encoding lacks is escaped instead of being an error.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


if __name__ == "__main__":
    main()
