"""What docs/running-workers.md shows works as it stands there: the probes and hooks of its manifest, and the arithmetic of its timeouts."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import attrs
import pytest
from cli_site import eventually
from servers import RedisServer

from jobqueue_core.durations import to_timedelta
from jobqueue_core.plugins import Plugins
from jobqueue_core.service import Patience
from jobqueue_core.settings import load_settings

PAGE: Final = (Path(__file__).parents[2] / "docs" / "running-workers.md").read_text()
MANIFEST: Final = PAGE.partition("```yaml\n")[2].partition("```")[0]
UNIT: Final = PAGE.partition("```ini\n")[2].partition("```")[0]
CONFIG: Final = textwrap.dedent(MANIFEST.partition("jobqueue.toml: |\n")[2].partition("---")[0])
COMMAND: Final = re.compile(r"^ *command: (\[.*\])$", re.MULTILINE)


def command_of(part: str) -> list[str]:
    """The command under that key of the manifest."""
    found = COMMAND.search(MANIFEST, MANIFEST.index(f"{part}:"))
    assert found is not None
    words: list[str] = json.loads(found[1])
    return words


def number_of(name: str, text: str = MANIFEST) -> list[int]:
    return [int(found) for found in re.findall(rf"^ *{name}[:=] ?(\d+)$", text, re.MULTILINE)]


@attrs.frozen
class Pod:
    """A container of the manifest, as far as a process can be one."""

    process: subprocess.Popen[bytes]
    folder: Path
    environ: dict[str, str]

    def execute(self, part: str) -> subprocess.CompletedProcess[str]:
        """Run a probe or a hook."""
        words = [word.replace("/proc/1/", f"/proc/{self.process.pid}/") for word in command_of(part)]
        (patience, *_) = number_of("timeoutSeconds")
        return subprocess.run(words, cwd=self.folder, env=self.environ, capture_output=True, text=True, timeout=patience, check=False)

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()


@pytest.fixture
def pod(tmp_path: Path, redis_server: RedisServer) -> Iterator[Pod]:
    """A pod that runs, with its config file and environment; the database of the manifest is away."""
    for program in ("jobqueue", "jobqueue-run"):
        assert shutil.which(program, path=Path(sys.executable).parent), f"the console script {program} is not installed: pip install -e ."
    (tmp_path / "jobqueue.toml").write_text(CONFIG)
    kept = {name: value for name, value in os.environ.items() if name in ("HOME", "TMPDIR", "LANG", "PYTHONPATH")}
    chosen = {"JOBQUEUE_CONFIG": str(tmp_path / "jobqueue.toml"), "REDIS_URL": redis_server.url, "DATABASE_URL": "postgresql://127.0.0.1:1/none"}
    environ = {**kept, **chosen, "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])}
    with (tmp_path / "log").open("ab") as log:
        process = subprocess.Popen(command_of("image"), cwd=tmp_path, env=environ, stdout=log, stderr=log)
    yield Pod(process, tmp_path, environ)
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    process.wait()


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="the hook writes to the log of process 1 by /proc")
def test_the_manifests_probes_and_hook_do_what_a_kubelet_wants_of_them(pod: Pod) -> None:
    pytest.importorskip("psycopg", reason="the manifest's storage")
    eventually(lambda: pod.execute("startupProbe").returncode == 0)
    assert [pod.execute(part).returncode for part in ("readinessProbe", "livenessProbe")] == [0, 0]

    assert pod.execute("preStop").returncode == 0
    pod.process.send_signal(signal.SIGTERM)

    assert pod.process.wait(number_of("terminationGracePeriodSeconds")[0]) == 0
    assert pod.execute("readinessProbe").returncode == 1
    assert pod.execute("livenessProbe").returncode == 1


def test_the_manifest_gives_a_worker_the_time_it_may_take_to_stop() -> None:
    timeout = re.search(r'shutdown_timeout = "(\w+)"', CONFIG)
    assert timeout is not None
    longest = (to_timedelta(timeout[1]) + Patience().beyond_grace).total_seconds()
    assert number_of("terminationGracePeriodSeconds")[0] > longest
    assert number_of("TimeoutStopSec", UNIT)[0] > longest


def test_a_probe_is_given_longer_than_a_broker_that_does_not_answer_takes() -> None:
    assert min(number_of("timeoutSeconds")) > 6


@pytest.mark.parametrize("text", [CONFIG, *re.findall(r"^```toml\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)])
def test_every_config_file_of_the_page_is_valid(tmp_path: Path, text: str) -> None:
    (tmp_path / "jobqueue.toml").write_text(text)
    settings = load_settings(tmp_path / "jobqueue.toml", environ={"DATABASE_URL": "postgresql://127.0.0.1:1/none"}, plugins=Plugins.load())
    assert settings.worker.shutdown_timeout == to_timedelta("60s")
