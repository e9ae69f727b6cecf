"""Find and read the config file."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import attrs

from jobqueue_core.errors import ConfigError

__all__ = ["CONFIG_VARIABLE", "ConfigFile", "read_config"]

CONFIG_VARIABLE: Final = "JOBQUEUE_CONFIG"
"""The environment variable that names the config file where the command line does not."""


@attrs.frozen(kw_only=True)
class ConfigFile:
    """What stands in a config file, not yet checked; without a file, nothing."""

    path: Path | None
    tables: dict[str, Any]

    @property
    def folder(self) -> Path:
        """What relative paths in it are relative to: its own folder; without a file the current one."""
        return Path.cwd() if self.path is None else self.path.absolute().parent

    @property
    def label(self) -> str:
        """How errors name it."""
        return "the defaults (there is no config file)" if self.path is None else str(self.path)


def read_config(path: Path | None, environ: Mapping[str, str]) -> ConfigFile:
    """Read the config file at *path*, else the one that ``JOBQUEUE_CONFIG`` names, else none.

    Raises:
        ConfigError: It cannot be read, or is not TOML.
    """
    named_by = ""
    if path is None and (named := environ.get(CONFIG_VARIABLE)):
        path, named_by = Path(named), f" (named by environment variable {CONFIG_VARIABLE})"
    if path is None:
        return ConfigFile(path=None, tables={})
    try:
        with path.open("rb") as file:
            return ConfigFile(path=path, tables=tomllib.load(file))
    except OSError as error:
        raise ConfigError([f"{path}: cannot be read{named_by}: {error.strerror or error}"]) from error
    except UnicodeDecodeError as error:
        raise ConfigError([f"{path}: is not UTF-8 text{named_by}: byte {error.start} cannot be read"]) from error
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError([f"{path}: is not TOML{named_by}: {error}"]) from error
