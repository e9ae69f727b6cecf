"""On which broker a test that takes long runs in every run. On the other one it is ``slow``, and runs by ``pytest -m slow``."""

from __future__ import annotations

from typing import Final

import pytest

__all__ = ["MOSTLY_REDIS", "MOSTLY_SQLITE", "WORKING_MOSTLY_REDIS", "WORKING_MOSTLY_SQLITE", "slowly"]


def slowly(*values: object) -> object:
    """Values of a parameter that are left out of a usual run."""
    return pytest.param(*values, marks=pytest.mark.slow)


MOSTLY_SQLITE: Final = pytest.mark.parametrize("broker_config", ["sqlite", slowly("redis")], indirect=True)
MOSTLY_REDIS: Final = pytest.mark.parametrize("broker_config", [slowly("sqlite"), "redis"], indirect=True)
WORKING_MOSTLY_SQLITE: Final = pytest.mark.parametrize("module_broker_config", ["sqlite", slowly("redis")], indirect=True)
WORKING_MOSTLY_REDIS: Final = pytest.mark.parametrize("module_broker_config", [slowly("sqlite"), "redis"], indirect=True)
