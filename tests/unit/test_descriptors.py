"""Each test has a process of its own: what is closed here would be missed by pytest."""

from __future__ import annotations

import subprocess
import sys

import pytest

BEFORE = """
import os, select, sys
from jobqueue_core.supervision.descriptors import Descriptors
control, other = os.pipe()
descriptors = Descriptors(control)
poller = select.poll()
poller.register(descriptors.alarm, select.POLLIN)
def alarmed():
    return bool(poller.poll(0))
"""


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", BEFORE + code], capture_output=True, text=True, timeout=30, check=True)
    return done.stdout


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_standard_descriptor_that_was_closed_is_opened_again(number: int) -> None:
    assert run(f"before = os.fstat({number}).st_ino; os.close({number}); descriptors.mend(); print(os.fstat({number}).st_ino == before)") == "True\n"


def test_a_standard_descriptor_that_was_redirected_stays_so() -> None:
    assert run("null = os.open(os.devnull, os.O_WRONLY); os.dup2(null, 1); descriptors.mend(); print('lost')") == ""


def test_nothing_is_gone_and_nobody_alarmed_as_long_as_nothing_is_closed() -> None:
    assert run("print(descriptors.gone(), alarmed())") == "False False\n"


def test_one_that_is_needed_is_missed_when_it_is_closed() -> None:
    assert run("os.close(control); print(descriptors.gone(), alarmed())") == "True False\n"


def test_one_that_is_needed_is_missed_also_when_something_else_has_its_number() -> None:
    assert run("os.dup2(0, control); print(descriptors.gone())") == "True\n"


def test_closing_everything_wakes_whoever_waits_at_the_alarm() -> None:
    assert (
        run("""
import threading, time
heard = []
waiting = threading.Event()
def wait():
    waiting.set()
    heard.append(poller.poll(10_000))
thread = threading.Thread(target=wait)
thread.start()
waiting.wait()
time.sleep(0.1)  # until it is in the system call: there is nothing else to see of it
os.closerange(3, 256)
thread.join()
print(bool(heard[0]), descriptors.gone())
""")
        == "True True\n"
    )
