"""What gunicorn says, in our log."""

from __future__ import annotations

import logging
from typing import Any

__all__ = ["GunicornLog"]

_log = logging.getLogger("jobqueue.api")


class GunicornLog:
    """Gunicorn's logger: its informations are details here, and requests are logged by the application.

    Args:
        cfg: Gunicorn's settings.
    """

    def __init__(self, cfg: Any) -> None:
        self.setup(cfg)

    def setup(self, cfg: Any) -> None:
        """Take note of other settings."""
        self.cfg = cfg

    def critical(self, message: str, *args: object, **options: Any) -> None:
        """Log it."""
        _log.critical(message, *args, **options)

    def error(self, message: str, *args: object, **options: Any) -> None:
        """Log it."""
        _log.error(message, *args, **options)

    def warning(self, message: str, *args: object, **options: Any) -> None:
        """Log it."""
        _log.warning(message, *args, **options)

    def info(self, message: str, *args: object, **options: Any) -> None:
        """Log it as a detail."""
        _log.debug(message, *args, **options)

    def debug(self, message: str, *args: object, **options: Any) -> None:
        """Log it, but for the list of all settings."""
        if not message.startswith("Current configuration"):
            _log.debug(message, *args, **options)

    def exception(self, message: str, *args: object, **options: Any) -> None:
        """Log it with the traceback."""
        _log.exception(message, *args, **options)

    def log(self, level: int, message: str, *args: object, **options: Any) -> None:
        """Log it at *level*."""
        _log.log(level, message, *args, **options)

    def access(self, *_facts: object) -> None:
        """Leave requests to the application."""

    def reopen_files(self) -> None:
        """There are none."""

    def close_on_exec(self) -> None:
        """There is nothing to close."""
