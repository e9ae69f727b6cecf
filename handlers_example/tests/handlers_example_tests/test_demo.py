"""The demonstration's own parts; the whole of it is run by the framework's integration tests."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace, TracebackType
from typing import Any, Self
from uuid import UUID

import attrs
import msgspec
import pytest
from handlers_example.demo import __main__ as demo
from handlers_example.demo import service
from handlers_example.demo.plan import plan
from handlers_example.demo.service import Service, ServiceError, find_command, write_config

from jobqueue_core import Job, JobQueue, JobState, Priority

EPOCH = datetime(2030, 1, 1, tzinfo=UTC)
SERVING = "import signal; signal.signal(signal.SIGTERM, lambda *_: exit(0)); signal.pause()"


@attrs.define
class ScriptedQueue:
    """Stands for a ``JobQueue`` whose jobs run as soon as they are looked at; *end* says how."""

    end: Callable[[Job], JobState]
    jobs: dict[str, Job] = attrs.field(factory=dict)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        """As the real one."""

    def enqueue_many(self, jobs: Iterable[dict[str, Any]]) -> list[SimpleNamespace]:
        for number, job in enumerate(jobs):
            made = Job(
                id=str(UUID(int=number)),
                type=job["type"],
                payload_json=msgspec.json.encode(job["payload"]),
                queue="default",
                priority=Priority.MEDIUM,
                state=JobState.QUEUED,
                created_at=EPOCH,
            )
            self.jobs[made.id] = made
        return [SimpleNamespace(status="created", job=job) for job in self.jobs.values()]

    def get(self, job_id: str) -> Job:
        job = self.jobs[job_id]
        if job.state is JobState.QUEUED:
            job = msgspec.structs.replace(job, state=JobState.PROCESSING, run=1, started_at=EPOCH)
        else:
            job = msgspec.structs.replace(job, state=self.end(job), completed_at=EPOCH + timedelta(milliseconds=12))
            ending = {"result_json": b'{"done":true}'} if job.state is JobState.COMPLETED else {"last_error": "ConnectionError: reset"}
            job = msgspec.structs.replace(job, **ending)
        self.jobs[job_id] = job
        return job


def as_planned(job: Job) -> JobState:
    return JobState.DEAD if job.type == "flaky.fetch" and job.payload["failures"] > 3 else JobState.COMPLETED


def script(folder: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> Service:
    """A service whose ``jobqueue-run`` is a script."""
    path = folder / "script.py"
    path.write_text(text)
    run = service.start
    monkeypatch.setattr(service, "find_command", lambda _name: "jobqueue-run")
    monkeypatch.setattr(service, "start", lambda _command, environ, log: run([sys.executable, str(path)], environ, log))
    return Service(write_config(folder), os.environ)


def test_each_file_has_its_checksum_computed(tmp_path: Path) -> None:
    (tmp_path / "part").mkdir()
    for name in ("b.md", "a.md", "part/c.md"):
        (tmp_path / name).touch()

    steps = plan(tmp_path)

    assert [step.label for step in steps if step.type == "files.checksum"] == ["a.md", "b.md", "part/c.md"]
    assert {step.type for step in steps} == {"csv.summarise", "email.send", "files.checksum", "flaky.fetch"}


def test_a_config_file_of_an_earlier_demonstration_is_kept(tmp_path: Path) -> None:
    path = write_config(tmp_path / "new")
    changed = path.read_text().replace("concurrency = 4", "concurrency = 2")
    path.write_text(changed)

    assert write_config(tmp_path / "new") == path
    assert path.read_text() == changed


def test_a_config_file_of_somebody_elses_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "jobqueue.toml").write_text("[broker]\n")

    with pytest.raises(ServiceError, match="choose another folder with --folder"):
        write_config(tmp_path)


def test_a_missing_command_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")

    with pytest.raises(ServiceError, match=r"no-such-command is not installed .* pip install jobqueue"):
        find_command("no-such-command")


def test_a_service_that_ends_by_itself_is_reported_with_its_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with script(tmp_path, monkeypatch, "raise SystemExit('the port is taken')") as running:
        assert running._process is not None  # noqa: SLF001 - waited for without stopping it
        running._process.wait(10)  # noqa: SLF001
        with pytest.raises(ServiceError, match=r"(?s)with status 1; .*the port is taken"):
            running.check()


def test_a_service_is_not_told_where_real_mail_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMTP_URL", "smtp://mail.example.com")
    monkeypatch.setenv("WORKER_QUEUES", "none")

    with script(tmp_path, monkeypatch, "import os; print(sorted(os.environ))") as running:
        assert running._process is not None  # noqa: SLF001 - waited for without stopping it
        assert running._process.wait(10) == 0  # noqa: SLF001
    assert "MAILDIR" in running.tail()
    assert "SMTP_URL" not in running.tail()
    assert "WORKER_QUEUES" not in running.tail()


def test_a_service_that_will_not_stop_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "GRACE", 0.1)
    stubborn = "import signal, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN); open('ready', 'w').close(); signal.pause()"
    monkeypatch.chdir(tmp_path)

    with script(tmp_path, monkeypatch, stubborn) as running:
        while not Path("ready").exists():
            running.check()

        assert running.stop() == -9


def test_a_demonstration_in_which_all_ends_as_planned_says_what_became_of_each_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.md").touch()
    script(tmp_path, monkeypatch, SERVING)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(JobQueue, "from_config", lambda _path: ScriptedQueue(as_planned))

    assert demo.demonstrate(tmp_path / "demo", tmp_path / "docs") == 0

    printed = capsys.readouterr().out
    lines = [line.split() for line in printed.splitlines()]
    assert "files.checksum (a.md) processing" in printed
    assert ["files.checksum", "a.md", "completed", "1", "12", "ms", '{"done":', "true}"] in lines
    assert ["flaky.fetch", "always", "fails", "dead", "1", "12", "ms", "ConnectionError:", "reset"] in lines
    assert "dlq retry 00000000-0000-0000-0000-000000000004" in printed


def test_a_demonstration_with_a_surprise_fails_and_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "docs").mkdir()
    script(tmp_path, monkeypatch, SERVING)
    monkeypatch.setattr(JobQueue, "from_config", lambda _path: ScriptedQueue(lambda _job: JobState.COMPLETED))

    assert demo.demonstrate(tmp_path / "demo", tmp_path / "docs") == 1

    assert "flaky.fetch (always fails) should have ended dead, but is completed" in capsys.readouterr().out
