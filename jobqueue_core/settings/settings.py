"""The settings: config file, environment and command line as frozen sections.

What is given later in *defaults, file, environment, command line* wins. Everything is checked before anything is used, and all that is wrong
is said at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from jobqueue_core.errors import ConfigError
from jobqueue_core.retry import RetryPolicy
from jobqueue_core.settings.configfile import read_config
from jobqueue_core.settings.sections import (
    CORE_SECTIONS,
    BrokerSection,
    HistorySection,
    JobSection,
    LogSection,
    PluginsSection,
    RetrySection,
    RunSection,
    SchedulerSection,
    StorageSection,
    WorkerSection,
)

if TYPE_CHECKING:
    from jobqueue_core.plugins import Plugins

__all__ = ["Settings", "load_settings"]


@attrs.frozen(kw_only=True)
class Settings:
    """All settings, one attribute for each section of the core; plugins' sections by :meth:`section`."""

    run: RunSection = attrs.field(factory=RunSection)
    broker: BrokerSection = attrs.field(factory=BrokerSection)
    storage: StorageSection = attrs.field(factory=StorageSection)
    worker: WorkerSection = attrs.field(factory=WorkerSection)
    job: JobSection = attrs.field(factory=JobSection)
    retry: RetrySection = attrs.field(factory=RetrySection)
    scheduler: SchedulerSection = attrs.field(factory=SchedulerSection)
    history: HistorySection = attrs.field(factory=HistorySection)
    log: LogSection = attrs.field(factory=LogSection)
    plugins: PluginsSection = attrs.field(factory=PluginsSection)
    offered: Mapping[str, Any] = attrs.field(factory=dict)
    """The sections that plugins offer, by table name."""
    warnings: tuple[str, ...] = ()
    """What is not wrong, but may not be what was meant; for the log."""
    source: Path | None = None
    """The config file; None without one."""

    def section(self, name: str) -> Any:
        """The section of table *name*: an instance of its class, or a list of them for an array of tables.

        Raises:
            LookupError: No installed plugin offers it.
        """
        if name in CORE_SECTIONS:
            return getattr(self, name)
        try:
            return self.offered[name]
        except KeyError:
            msg = f"there is no section [{name}]: no installed plugin offers it"
            raise LookupError(msg) from None

    @property
    def folder(self) -> Path:
        """What relative paths are relative to: the config file's folder, without one the current folder."""
        return Path.cwd() if self.source is None else self.source.absolute().parent

    def retry_policy(self) -> RetryPolicy:
        """The retry policy for handlers that have none of their own."""
        return RetryPolicy(base=self.retry.base, max=self.retry.max, jitter=self.retry.jitter)


def load_settings(
    path: Path | None = None, *, environ: Mapping[str, str], overrides: Mapping[str, object] | None = None, plugins: Plugins | None = None
) -> Settings:
    """Read and check the settings.

    Args:
        path: The config file; None for the one that ``JOBQUEUE_CONFIG`` names, else none: the embedded default in the current folder.
        environ: The environment.
        overrides: Key path -> value from the command line, as ``{"worker.concurrency": 4}``; values are as in the config file.
        plugins: What is installed; None to find out. Those that ``[plugins] disable`` names are disabled in it.

    Raises:
        ConfigError: With every problem found, each naming its source, key path, value and what is allowed.
    """
    # Here, because whoever is given settings (tests, a client made from parts) need not pay for reading them; and plugins, which read our
    # sections, come before settings, which read plugins' sections.
    from jobqueue_core.plugins import Plugins
    from jobqueue_core.settings.loading import Loader

    loader = Loader(read_config(path, environ), Plugins.load() if plugins is None else plugins)
    loader.read_environment(environ)
    loader.read_overrides(overrides or {})
    values = loader.values(environ)
    if loader.draft.problems:
        raise ConfigError(loader.draft.problems)
    core = {name: value for name, value in values.items() if name in CORE_SECTIONS}
    offered = {name: value for name, value in values.items() if name not in CORE_SECTIONS}
    return Settings(**core, offered=offered, warnings=tuple(loader.draft.warnings), source=loader.draft.file.path)
