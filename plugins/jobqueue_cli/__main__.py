"""``python -m jobqueue_cli``: the command ``jobqueue`` where its script is not on the PATH."""

from __future__ import annotations

from jobqueue_cli.main import main

if __name__ == "__main__":
    main()
