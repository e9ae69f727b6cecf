"""The conformance suites themselves: no part hides a test of another, and importing the package costs nothing."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter

import pytest

from jobqueue_core.testing import BrokerSuite, StorageSuite


@pytest.mark.parametrize("suite", [BrokerSuite, StorageSuite])
def test_no_part_of_a_suite_hides_a_test_of_another(suite: type) -> None:
    names = Counter(name for part in suite.__mro__ for name in vars(part) if name.startswith("test_"))
    assert [name for name, count in names.items() if count > 1] == []
    assert len(names) > 30


def test_importing_the_testing_package_does_not_import_pytest() -> None:
    program = "import sys, jobqueue_core.testing as testing; testing.ManualClock; assert 'pytest' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_an_unknown_name_of_the_testing_package_is_an_attribute_error() -> None:
    import jobqueue_core.testing

    with pytest.raises(AttributeError, match="no_such_suite"):
        _ = jobqueue_core.testing.no_such_suite
