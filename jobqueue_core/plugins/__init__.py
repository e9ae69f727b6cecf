"""Plugins: finding them, checking them, and asking them what they offer."""

from jobqueue_core.plugins.catalogue import PluginFault
from jobqueue_core.plugins.plugins import HandlerSource, Plugins

__all__ = ["HandlerSource", "PluginFault", "Plugins"]
