"""A Python client that is generated from the OpenAPI document does what its users want of it, on a real server with a real worker."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

import pytest
from cli_site import eventually
from served_site import ServedSite, served

httpx = pytest.importorskip("httpx", reason="generated clients need it")
pytest.importorskip("openapi_python_client", reason="generates the client")
pytest.importorskip("gunicorn", reason="the extra api")

PAGE: Final = (Path(__file__).parents[2] / "docs" / "rest-api.md").read_text()
PROGRAM: Final = PAGE.partition("<!-- client -->\n\n```python\n")[2].partition("```")[0]
PACKAGE: Final = "jobqueue_client"
KEY: Final = "admin-key-8d0d1b2c"

Generated = tuple[Path, subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedSite]:
    with served(tmp_path_factory.mktemp("served"), api=f'[[api.keys]]\nname = "tests"\nrole = "admin"\nkey = "{KEY}"') as found:
        yield found


@pytest.fixture(scope="module")
def generated(server: ServedSite, tmp_path_factory: pytest.TempPathFactory) -> Generated:
    """Where the package of the client is, and what the generator said. The document is what ``jobqueue openapi`` writes."""
    folder = tmp_path_factory.mktemp("generated")
    written = server.site.call("openapi")
    assert written.returncode == 0, written.stderr
    (folder / "openapi.yaml").write_text(written.stdout)
    (folder / "config.yaml").write_text("post_hooks: []\n")
    words = ["generate", "--path", "openapi.yaml", "--meta", "none", "--config", "config.yaml", "--output-path", PACKAGE]
    done = subprocess.run([sys.executable, "-m", "openapi_python_client", *words], cwd=folder, capture_output=True, text=True, check=False)
    return folder, done


class Library:
    """The generated package: ``library.api("jobs.create_job")``, ``library.models.Job``."""

    def __init__(self, url: str) -> None:
        self.models: Any = importlib.import_module(f"{PACKAGE}.models")
        self._package: Any = importlib.import_module(PACKAGE)
        self._url = url

    def api(self, name: str) -> Any:
        return importlib.import_module(f"{PACKAGE}.api.{name}")

    def client(self, key: str = KEY) -> Any:
        return self._package.AuthenticatedClient(base_url=self._url, token=key, timeout=httpx.Timeout(30))

    def enqueue(self, client: Any, type: str, payload: object = None, **options: Any) -> Any:
        return self.api("jobs.create_job").sync(client=client, body=self.models.JobRequest(type_=type, payload=payload, **options))

    def finished(self, client: Any, job: Any) -> Any:
        while job.completed_at is None:
            job = self.api("jobs.get_job").sync(job.id, client=client, wait="20s")
        return job


@pytest.fixture(scope="module")
def library(generated: Generated, server: ServedSite) -> Iterator[Library]:
    folder, _said = generated
    sys.path.insert(0, str(folder))
    try:
        yield Library(server.url)
    finally:
        sys.path.remove(str(folder))
        for name in [name for name in sys.modules if name.partition(".")[0] == PACKAGE]:
            del sys.modules[name]


@pytest.fixture(scope="module")
def client(library: Library) -> Iterator[Any]:
    with library.client() as found:
        yield found


# The document --------------------------------------------------------------------------------------------------------------------------


def test_the_generator_has_nothing_to_complain_of(generated: Generated) -> None:
    _folder, said = generated

    assert (said.returncode, said.stderr) == (0, "")
    assert said.stdout.split() == ["Generating", PACKAGE]


def test_no_class_is_called_after_where_it_stands(library: Library) -> None:
    """``JobRequestMetadataType0``, ``GetStatsResponse200``: a schema that should have had a name."""
    assert [name for name in library.models.__all__ if re.search(r"Type\d|Response\d|Item$|AdditionalProperty|Object$", name)] == []
    assert len(library.models.__all__) >= 40


def test_a_job_has_real_times_ids_and_enums_and_its_fields_stand_as_they_are_declared(library: Library, client: Any) -> None:
    before = datetime.now(UTC)

    job = library.enqueue(client, "test.nobody", delay="1h", priority=library.models.Priority.LOW)

    assert isinstance(job.id, uuid.UUID)
    assert (job.scheduled_at - before).total_seconds() == pytest.approx(3600, abs=30)
    assert (job.state, job.priority) == (library.models.JobState.SCHEDULED, library.models.Priority.LOW)
    assert (job.started_at, job.last_error, job.dead_reason, job.progress) == (None, None, None, None)
    assert list(library.models.Job.__annotations__)[:4] == ["id", "type_", "payload", "queue"]


# What users do -------------------------------------------------------------------------------------------------------------------------


def test_a_job_is_enqueued_waited_for_and_read(library: Library, client: Any) -> None:
    metadata = library.models.JobRequestMetadata.from_dict({"tenant": "acme"})

    created = library.enqueue(client, "email.send", {"to": "user@example.com"}, timeout="30s", metadata=metadata)
    done = library.finished(client, created)

    assert (done.id, done.state, done.run, done.timeout) == (created.id, library.models.JobState.COMPLETED, 1, "30s")
    assert done.result["delivered_to"] == ["user@example.com"]
    assert done.metadata["tenant"] == "acme"
    assert done.created_at <= done.started_at <= done.completed_at


def test_the_program_of_the_page_runs(library: Library, server: ServedSite, capsys: pytest.CaptureFixture[str]) -> None:
    code = PROGRAM.replace("http://localhost:8080", server.url).replace('"jobqueue_..."', repr(KEY))

    exec(compile(code, "docs/rest-api.md", "exec", dont_inherit=True), {"__name__": "program"})

    assert "'delivered_to': ['user@example.com']" in capsys.readouterr().out


def test_pages_of_a_list_are_walked_by_their_links(library: Library, client: Any) -> None:
    wanted = {library.enqueue(client, "test.pages", delay="1h", queue="pages").id for _ in range(5)}

    found: list[uuid.UUID] = []
    cursor: dict[str, str] = {}
    while True:
        page = library.api("jobs.list_jobs").sync_detailed(client=client, queue="pages", limit=2, **cursor)
        found += [job.id for job in page.parsed]
        link = re.search(r"[?&]cursor=([^&>]+)", page.headers.get("Link", ""))
        if link is None:
            break
        cursor = {"cursor": httpx.QueryParams(f"cursor={link[1]}")["cursor"]}

    assert sorted(found) == sorted(wanted)


def test_a_batch_says_of_each_job_what_became_of_it(library: Library, client: Any) -> None:
    models = library.models
    requests = [models.JobRequest(type_="test.batch", delay=3600, unique_key=key) for key in ("one", "two", "one")]

    answers = library.api("jobs.create_jobs").sync(client=client, body=models.JobBatch(jobs=requests))

    assert [one.status.value for one in answers] == ["created", "created", "existing"]
    assert answers[2].id == answers[0].id == answers[0].job.id


def test_a_conflict_is_a_typed_error(library: Library, client: Any) -> None:
    job = library.enqueue(client, "test.nobody", delay="1h")
    cancel = library.api("jobs.cancel_job")

    first, second = (cancel.sync_detailed(job.id, client=client) for _ in range(2))

    assert (first.status_code, first.parsed.state) == (HTTPStatus.OK, library.models.JobState.CANCELLED)
    assert (second.status_code, second.parsed.code) == (HTTPStatus.CONFLICT, "finished")
    assert isinstance(second.parsed, library.models.Error)


def test_a_wrong_field_is_named_by_a_typed_error(library: Library, client: Any) -> None:
    answer = library.api("jobs.create_job").sync_detailed(client=client, body=library.models.JobRequest(type_="email.send", max_retries=-1))

    assert answer.status_code == HTTPStatus.UNPROCESSABLE_ENTITY
    assert isinstance(answer.parsed, library.models.Error)
    assert (answer.parsed.code, [one.field for one in answer.parsed.details]) == ("invalid", ["max_retries"])


def test_an_unknown_key_is_a_typed_error(library: Library) -> None:
    with library.client("nobody-has-this") as stranger:
        answer = library.api("statistics.get_statistics").sync_detailed(client=stranger)

    assert (answer.status_code, answer.parsed.code) == (HTTPStatus.UNAUTHORIZED, "unauthorized")


def test_a_dead_letter_is_found_and_retried_with_another_payload(library: Library, client: Any) -> None:
    job = library.finished(client, library.enqueue(client, "flaky.fetch", {"failures": 5}, max_retries=0))
    assert (job.state, job.dead_reason) == (library.models.JobState.DEAD, library.models.DeadReason.RETRIES_EXHAUSTED)
    letter = library.api("dead_letters.get_dead_letter")
    eventually(lambda: letter.sync_detailed(job.id, client=client).status_code == HTTPStatus.OK)
    assert letter.sync(job.id, client=client).state is library.models.DeadLetterState.OPEN

    retried = library.api("dead_letters.retry_dead_letter").sync(job.id, client=client, body=library.models.Replacement(payload={"failures": 0}))

    assert library.finished(client, retried).state is library.models.JobState.COMPLETED
    assert letter.sync(job.id, client=client).state is library.models.DeadLetterState.REQUEUED


def test_a_dead_letter_is_retried_without_a_body(library: Library, client: Any) -> None:
    """The client sends the Content-Type of a body that it does not send."""
    job = library.finished(client, library.enqueue(client, "flaky.fetch", {"failures": 1}, max_retries=0))
    letter = library.api("dead_letters.get_dead_letter")
    eventually(lambda: letter.sync_detailed(job.id, client=client).status_code == HTTPStatus.OK)

    answer = library.api("dead_letters.retry_dead_letter").sync_detailed(job.id, client=client)

    assert (answer.status_code, answer.parsed.deaths) == (HTTPStatus.OK, 1)


def test_a_schedule_is_created_changed_run_and_deleted(library: Library, client: Any) -> None:
    models = library.models
    body = models.NewSchedule(name="nightly", expression="30 2 * * *", type_="email.send", timezone="Europe/Berlin", misfire=models.Misfire.SKIP)
    schedules = {name: library.api(f"schedules.{name}_schedule") for name in ("create", "change", "run", "delete")}

    created = schedules["create"].sync(client=client, body=body)
    changed = schedules["change"].sync("nightly", client=client, body=models.ScheduleChanges(paused=True, queue="low"))
    job = schedules["run"].sync("nightly", client=client)
    deleted = schedules["delete"].sync_detailed("nightly", client=client)

    assert (created.misfire, created.overlap, created.paused) == (models.Misfire.SKIP, models.Overlap.ALLOW, False)
    assert created.next_run > datetime.now(UTC)
    assert (changed.paused, changed.queue, changed.expression) == (True, "low", created.expression)
    assert (job.type_, job.queue, job.metadata["jobqueue.schedule"]) == ("email.send", "low", "nightly")
    assert (deleted.status_code, deleted.parsed) == (HTTPStatus.NO_CONTENT, None)
