"""What the REST API does is what its OpenAPI document says, whatever it is asked."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import falcon.inspect
import jsonschema_rs
import msgspec
import pytest
import yaml
from api_site import PREFIX, SECRETS, ApiSite, opened
from brokers import slowly
from openapi_spec_validator import OpenAPIV31SpecValidator, validate
from werkzeug.serving import WSGIRequestHandler, make_server

from jobqueue_api.resources.documents import as_yaml
from jobqueue_core.attempt import ExecutionState
from jobqueue_core.job import DeadReason
from jobqueue_core.testing.factories import dead_letter

ROOT: Final = Path(__file__).parents[2]
UNDOCUMENTED: Final = {f"{PREFIX}/openapi.json", f"{PREFIX}/openapi.yaml", "/docs", "/docs/swagger.js", "/docs/swagger.css", "/docs/start.js"}
"""The description itself."""
ODD_PAYLOADS: Final = {
    "nothing": b"",
    "null": b"null",
    "a big number": b"[123456789012345678901234567890]",
    "a number beyond all": b"[1e400]",
    "half a character": b'"\\ud800"',
    "a name twice": b'{"a": 1, "a": 2}',
    "no JSON": b"\xff not json",
    "deep": b"[" * 2000 + b"]" * 2000,
}

# Fuzzing -------------------------------------------------------------------------------------------------------------------------------

_BEYOND_SCHEMA: Final = {
    "createJob": "a delay together with scheduled_at, unique_for without unique_key, a time beyond the year 9999",
    "createJobs": "the same",
    "createSchedule": "an expression, a time zone, an end before the start",
    "changeSchedule": "the same, and no change at all",
    "listJobs": "a cursor that no page has given",
    "listDeadLetters": "the same",
    "listExecutions": "the same",
    "getJob": "a wait of more than 30s",
    "streamEvents": "an id of no event, a duration of a hundred years",
}
"""Operation -> what its schema cannot rule out, and is answered 422."""
_CONFIG: Final = """
[dictionaries]
jobs = {{ values = {jobs} }}
dead = {{ values = {dead} }}
names = {{ values = {names} }}

[parameters]
"path.job_id" = {{ dictionary = "jobs", probability = 0.8 }}
"path.name" = {{ dictionary = "names", probability = 0.8 }}

[headers]
Authorization = "Bearer {key}"

[warnings]
fail-on = ["missing_test_data"]

[checks]
positive_data_acceptance = {{ expected-statuses = ["2xx", 401, 403, 404, 409] }}

[[operations]]
include-path-regex = "/(jobs|dlq|executions)"
checks = {{ use_after_free = {{ enabled = false }} }}

[[operations]]
include-path-regex = "/dlq/.*job_id"
parameters = {{ "path.job_id" = {{ dictionary = "dead", probability = 0.8 }} }}

[[operations]]
include-operation-id = {beyond}
checks = {{ positive_data_acceptance = {{ expected-statuses = ["2xx", 401, 403, 404, 409, 422] }} }}
"""
"""What schemathesis is told: make many paths name what exists, send the key, and take no error for an answer to what the schema allows.

To delete a job is to cancel it, and a dead letter, to discard it: both can be looked up afterwards.
"""


class _Quiet(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log(self, type: str, message: str, *args: Any) -> None:
        """Nothing."""


class _Burying:
    """The application, where some jobs die anew after each bulk action: else one of them would leave nothing for all that comes after."""

    def __init__(self, site: ApiSite, ids: Sequence[str]) -> None:
        self._site = site
        self._ids = ids
        self._deaths = itertools.count(2)

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        answer = self._site.wsgi(environ, start_response)
        if environ["PATH_INFO"] in (f"{PREFIX}/dlq", f"{PREFIX}/dlq/retry") and environ["REQUEST_METHOD"] in ("POST", "DELETE"):
            death = next(self._deaths)
            self._site.storage.record_dead_letters([dead_letter(id=one, deaths=death, died_at=self._site.broker.now()) for one in self._ids])
        return answer


@pytest.fixture
def fuzzed(tmp_path: Path) -> Iterator[tuple[ApiSite, str]]:
    """A site with something of everything, its address, and in *tmp_path* its document and what schemathesis is told."""
    with opened(ApiSite(tmp_path)) as site:
        # What would wait or stream ends at once.
        site.closing.begin()
        jobs, dead = _fill(site)
        names = [queue.name for queue in site.queue.operations.queues()] + [one.name for one in site.queue.schedules.all()]
        told = _CONFIG.format(
            jobs=json.dumps(jobs), dead=json.dumps(dead), names=json.dumps(names), key=SECRETS["admin"], beyond=json.dumps(list(_BEYOND_SCHEMA))
        )
        (tmp_path / "schemathesis.toml").write_text(told)
        # There are keys here, so that a key is not optional.
        (tmp_path / "openapi.json").write_text(json.dumps({**_document(site), "security": [{"key": []}]}))
        server = make_server("127.0.0.1", 0, _Burying(site, dead), threaded=True, request_handler=_Quiet)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield site, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()
        server.server_close()


def _fill(site: ApiSite) -> tuple[list[str], list[str]]:
    """Put something of everything into *site*; ids of jobs, and of dead ones."""
    jobs = [job.id for _ in range(4) for job in site.one_of_each().values()]
    dead = [site.dead(error=f"OSError: {number}", queue="mail").id for number in range(20)]
    dead += [site.dead(reason=reason).id for reason in DeadReason]
    for odd in ODD_PAYLOADS.values():
        dead.append(site.undecodable(payload_json=odd))
        jobs.append(site.completed(result_json=odd or None).id)
    jobs += [site.archived(state=state) for state in ExecutionState]
    site.worker()
    for number in range(6):
        site.schedule(f"nightly-{number}")
    site.schedule("hourly", jitter="30s", start=site.broker.now(), end=site.broker.now() + timedelta(days=9), timeout="1m", queue="mail")
    site.config_schedule()
    site.queue.schedules.run("hourly")
    site.queue.operations.pause_queue("mail")
    return jobs, dead


@pytest.mark.parametrize("examples", [6, slowly(500)])
@pytest.mark.timeout(3600)
def test_whatever_is_asked_is_answered_as_the_document_says(fuzzed: tuple[ApiSite, str], tmp_path: Path, examples: int) -> None:
    site, url = fuzzed
    # By one worker: ast.parse, with which hypothesis describes what it makes, fails in threads of Python 3.11.
    told = ["--url", url, "--max-examples", str(examples), "--no-color"]
    seed = ["--seed", "1", "--generation-deterministic"] if examples < 100 else []
    command = [sys.executable, "-m", "schemathesis.cli", "run", "openapi.json", "--checks", "all", "--continue-on-failure", *told, *seed]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr
    operations = sum(len(methods) for methods in _document(site)["paths"].values())
    assert re.search(rf"Tested: +{operations}\n", done.stdout), done.stdout


# The document --------------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiSite]:
    with opened(ApiSite(tmp_path_factory.mktemp("api"))) as site:
        _fill(site)
        yield site


def _document(site: ApiSite) -> dict[str, Any]:
    answer = site.client("read").simulate_get(f"{PREFIX}/openapi.json")
    assert answer.status_code == 200, answer.text
    document: dict[str, Any] = answer.json
    return document


@pytest.fixture(scope="module")
def document(site: ApiSite) -> dict[str, Any]:
    return _document(site)


def test_the_document_is_openapi_3_1(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1.")
    validate(document, cls=OpenAPIV31SpecValidator)


def test_json_and_yaml_say_the_same(site: ApiSite, document: dict[str, Any]) -> None:
    answer = site.client("read").simulate_get(f"{PREFIX}/openapi.yaml")
    assert answer.headers["content-type"].startswith("application/yaml")
    assert yaml.safe_load(answer.content) == document


def test_the_file_at_the_top_level_is_what_is_served(document: dict[str, Any]) -> None:
    written = (ROOT / "api" / "openapi.yaml").read_bytes()
    assert written == as_yaml(document), "write it anew: jobqueue openapi > api/openapi.yaml"


def test_every_route_is_in_the_document_and_the_other_way_round(site: ApiSite, document: dict[str, Any]) -> None:
    routed = {
        (re.sub(r"\{(\w+):\w+\}", r"{\1}", route.path), method.method)
        for route in falcon.inspect.inspect_routes(site.wsgi)
        for method in route.methods
        if not method.internal and method.method != "HEAD"
    }
    documented = {(path, method.upper()) for path, methods in document["paths"].items() for method in methods}
    assert {one for one in routed if one[0] not in UNDOCUMENTED} == documented
    assert {path for path, _method in routed} >= UNDOCUMENTED


def test_every_operation_says_what_it_does(document: dict[str, Any]) -> None:
    operations = [one for methods in document["paths"].values() for one in methods.values()]
    assert len({one["operationId"] for one in operations}) == len(operations)
    tags = {tag["name"] for tag in document["tags"] if tag["description"]}
    for one in operations:
        assert one["summary"], one["operationId"]
        assert one["description"], one["operationId"]
        assert set(one["tags"]) <= tags, one["operationId"]
        assert all(parameter["description"] for parameter in one.get("parameters", ())), one["operationId"]
        assert all(response["description"] for response in one["responses"].values()), one["operationId"]


def test_every_schema_says_what_it_is(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    assert [name for name, schema in schemas.items() if not schema.get("description")] == []


def test_no_description_has_markup_of_python(document: dict[str, Any]) -> None:
    texts = re.findall(r'"description":"((?:[^"\\]|\\.)*)"', msgspec.json.encode(document).decode())
    assert texts
    assert [text for text in texts if "``" in text or ":class:" in text or ":meth:" in text] == []


def test_every_error_has_the_one_shape(document: dict[str, Any]) -> None:
    error = {"$ref": "#/components/schemas/Error"}
    for path, methods in document["paths"].items():
        for method, one in methods.items():
            for status, response in one["responses"].items():
                if int(status) >= 400:
                    assert response["content"] == {"application/json": {"schema": error}}, (path, method, status)
                if int(status) in (429, 503):
                    assert "Retry-After" in response["headers"], (path, method, status)


def test_operations_say_which_role_they_need_and_which_need_no_key(document: dict[str, Any]) -> None:
    for path, methods in document["paths"].items():
        for method, one in methods.items():
            if path in ("/health", "/ready"):
                assert one["security"] == [], path
            else:
                assert "security" not in one, path
                assert one["x-role"] == "read" if method == "get" else one["x-role"] in ("write", "admin"), (path, method)


# Answers -------------------------------------------------------------------------------------------------------------------------------


def _check(document: dict[str, Any], name: str, value: object) -> None:
    """That *value* is what the document calls *name*, with all its fields and no others."""
    schema = {"$ref": f"#/components/schemas/{name}", "components": document["components"]}
    jsonschema_rs.Draft202012Validator(schema, validate_formats=True).validate(value)
    assert isinstance(value, dict)
    assert set(value) == set(document["components"]["schemas"][name]["properties"])


@pytest.mark.parametrize(
    "make",
    [
        "queued",
        "scheduled",
        "processing",
        "retrying",
        "completed",
        "dead",
        "cancelled",
    ],
)
def test_a_job_is_answered_whole_in_every_state(site: ApiSite, document: dict[str, Any], make: str) -> None:
    options = {
        "payload": {"n": [1, None]},
        "priority": "high",
        "max_retries": 2,
        "timeout": "90s",
        "expires_in": "2h",
        "unique_key": f"key of {make}",
        "metadata": {"tenant": "a"},
        "headers": {"traceparent": "00-1"},
    }
    job = getattr(site, make)(**options)
    answer = site.client("read").simulate_get(f"{PREFIX}/jobs/{job.id}")
    _check(document, "Job", answer.json)
    assert answer.json["state"] == job.state
    asked = {**options, "timeout": "1m30s"}
    del asked["expires_in"]
    assert {name: answer.json[name] for name in asked} == asked


@pytest.mark.parametrize("state", ExecutionState)
def test_a_job_that_only_history_remembers_is_answered_whole(site: ApiSite, document: dict[str, Any], state: ExecutionState) -> None:
    job_id = site.archived(state=state, metadata={"tenant": "a"}, error="it did")
    answer = site.client("read").simulate_get(f"{PREFIX}/jobs/{job_id}")
    _check(document, "Job", answer.json)
    found = {name: answer.json[name] for name in ("archived", "payload", "result", "metadata", "last_error")}
    assert found == {"archived": True, "payload": None, "result": None, "metadata": {"tenant": "a"}, "last_error": "it did"}
    assert answer.json["scheduled_at"] is not None


@pytest.mark.parametrize("odd", ODD_PAYLOADS)
def test_a_dead_letter_is_answered_whole_whatever_its_payload(site: ApiSite, document: dict[str, Any], odd: str) -> None:
    job_id = site.undecodable(payload_json=ODD_PAYLOADS[odd], raw=b"\xff\x00 found")
    answer = site.client("read").simulate_get(f"{PREFIX}/dlq/{job_id}")
    assert answer.status_code == 200, answer.text
    _check(document, "DeadLetter", answer.json)
    assert (answer.json["dead_reason"], answer.json["raw_bytes"]) == ("undecodable", 8)


@pytest.mark.parametrize("odd", ODD_PAYLOADS)
def test_a_job_is_answered_whole_whatever_its_result(site: ApiSite, document: dict[str, Any], odd: str) -> None:
    job = site.completed(result_json=ODD_PAYLOADS[odd] or None)
    answer = site.client("read").simulate_get(f"{PREFIX}/jobs/{job.id}")
    assert answer.status_code == 200, answer.text
    _check(document, "Job", answer.json)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/jobs", "Job"),
        ("/queues", "Queue"),
        ("/dlq", "DeadLetter"),
        ("/dlq?state=all", "DeadLetter"),
        ("/dlq/groups", "DeadLetterGroup"),
        ("/executions", "Execution"),
        ("/schedules", "Schedule"),
        ("/schedules/hourly/runs", "ScheduleRun"),
        ("/schedules/hourly/next", "Tick"),
        ("/workers", "Worker"),
        ("/types", "Type"),
    ],
)
def test_every_row_of_a_list_is_answered_whole(site: ApiSite, document: dict[str, Any], path: str, name: str) -> None:
    answer = site.client("read").simulate_get(f"{PREFIX}{path}")
    assert answer.status_code == 200, answer.text
    assert answer.json
    for row in answer.json:
        _check(document, name, row)


def test_what_handlers_logged_is_answered_whole(site: ApiSite, document: dict[str, Any]) -> None:
    job = site.processing()
    (line,) = site.client("read").simulate_get(f"{PREFIX}/jobs/{job.id}/logs").json
    _check(document, "LogLine", line)
    assert line["message"] == "half of it is done"


def test_statistics_are_answered_whole(site: ApiSite, document: dict[str, Any]) -> None:
    answer = site.client("read").simulate_get(f"{PREFIX}/stats")
    _check(document, "Statistics", answer.json)
    assert answer.json["executions_24h"]["total"] > 0
