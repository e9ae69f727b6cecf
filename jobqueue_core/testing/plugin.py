"""The pytest plugin (entry point ``pytest11``, name ``jobqueue``): failed assertions in the conformance suites say what was compared."""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite("jobqueue_core.testing.broker_suite", "jobqueue_core.testing.storage_suite")
