"""Settings: TOML, environment and command line -> frozen sections, with every mistake named at once."""

from jobqueue_core.settings.settings import Settings, load_settings

__all__ = ["Settings", "load_settings"]
