"""The version of this distribution, in a file of its own so that a build can read it without importing the rest."""

from __future__ import annotations

__all__ = ["__version__"]

__version__ = "0.1.0"
