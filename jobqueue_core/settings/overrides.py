"""Settings on the command line: ``--set worker.concurrency=4``."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable

from jobqueue_core.errors import ConfigError
from jobqueue_core.urls import redact

__all__ = ["read_overrides"]


def read_overrides(texts: Iterable[str]) -> dict[str, object]:
    """Read ``section.key=value`` texts; a value is as in the config file, but text needs no quotes.

    Returns:
        Key path -> value; of two texts for one key the later counts.

    Raises:
        ConfigError: A text has no ``=``; with every such text.
    """
    overrides: dict[str, object] = {}
    problems = []
    for text in texts:
        key, equals, value = text.partition("=")
        if equals and key.strip():
            overrides[key.strip()] = _value(value.strip())
        else:
            problems.append(f"--set {redact(text)!r}: must be SECTION.KEY=VALUE, as in --set worker.concurrency=4")
    if problems:
        raise ConfigError(problems)
    return overrides


def _value(text: str) -> object:
    try:
        tables = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    # More than one key: the text has gone on to a second line.
    return tables["value"] if len(tables) == 1 else text
