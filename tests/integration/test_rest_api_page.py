"""What docs/rest-api.md shows works as it stands there: its requests, its objects, its table of errors, its programs."""

from __future__ import annotations

import argparse
import ast
import json
import re
import shlex
import shutil
import subprocess
import tomllib
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from served_site import ServedSite, served

import jobqueue_api
import jobqueue_core
from jobqueue_api.http.held import Held
from jobqueue_api.http.problems import Refusal, problem_of
from jobqueue_core import BrokerUnavailable, JobNotFound
from jobqueue_core.keys import KeyRing
from jobqueue_core.plugins import Plugins
from jobqueue_core.settings import load_settings

jsonschema = pytest.importorskip("jsonschema", reason="compares objects with their schema")
pytest.importorskip("gunicorn", reason="the extra api")

ROOT: Final = Path(__file__).parents[2]
PAGE: Final = (ROOT / "docs" / "rest-api.md").read_text()
REQUESTS: Final = [line for block in re.findall(r"^```sh\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE) for line in block.splitlines()]
OBJECTS: Final = re.findall(r"^<!-- object: (\w+) -->\n\n```json\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
TYPESCRIPT: Final = PAGE.partition("```typescript\n")[2].partition("```")[0]
ORIGINAL: Final = (
    """curl -X POST http://localhost:8080/api/v1/jobs -H "Content-Type: application/json" \
-d '{"type": "email.send", "payload": {"to": "user@example.com"}}'""",
    "curl http://localhost:8080/api/v1/jobs/{job_id}",
    "curl http://localhost:8080/api/v1/queues/default/stats",
    "curl http://localhost:8080/api/v1/dlq",
    "curl -X POST http://localhost:8080/api/v1/dlq/{job_id}/retry",
    "curl http://localhost:8080/health",
    "curl http://localhost:8080/api/v1/openapi.yaml",
)
"""What users of the original know."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedSite]:
    with served(tmp_path_factory.mktemp("page")) as found:
        yield found


@pytest.fixture(scope="module")
def document(server: ServedSite) -> dict[str, Any]:
    status, found = server.ask("/api/v1/openapi.json")
    assert status == 200
    return dict(found)


# Requests ------------------------------------------------------------------------------------------------------------------------------


def test_the_requests_of_the_page_are_answered_as_it_says(server: ServedSite) -> None:
    """In the page's order, for one may need what another has made."""
    assert server.ask("/api/v1/jobs", {"type": "email.send", "payload": {"to": "a@example.com"}})[0] == 201

    answers = [(line, send(server, line)) for line in REQUESTS]

    assert [(line, status) for line, status in answers if not 200 <= status < 300] == []
    assert [status for line, status in answers if "Idempotency-Key" in line] == [201, 200]
    assert len(answers) >= 40


def test_the_requests_that_users_of_the_original_know_are_on_the_page() -> None:
    assert [line for line in ORIGINAL if line not in REQUESTS] == []


def test_every_operation_but_that_of_events_is_shown(document: dict[str, Any]) -> None:
    shown = {(request.method, re.sub(r"/(default|low|nightly-report)(?=/|$)", "/{name}", request.path)) for request in map(Request, REQUESTS)}
    declared = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}

    assert declared - shown == {("GET", "/api/v1/events")}


class Request:
    """A line ``curl ...``, read."""

    def __init__(self, line: str) -> None:
        parser = argparse.ArgumentParser(exit_on_error=False)
        parser.add_argument("-X", dest="method")
        parser.add_argument("-H", dest="headers", action="append", default=[])
        parser.add_argument("-d", dest="data")
        parser.add_argument("-i", action="store_true")
        parser.add_argument("url")
        program, *words = shlex.split(line)
        assert program == "curl"
        found = parser.parse_args(words)
        self.words = words
        self.url: str = found.url
        self.method: str = found.method or ("GET" if found.data is None else "POST")
        self.headers = dict(header.split(": ", 1) for header in found.headers)
        self.data: str | None = found.data
        self.path = found.url.removeprefix("http://localhost:8080").partition("?")[0]

    def send(self, url: str) -> int:
        """Send it without curl."""
        request = urllib.request.Request(url, None if self.data is None else self.data.encode(), self.headers, method=self.method)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            with error:
                return error.code


def send(server: ServedSite, line: str) -> int:
    """Send what a line of the page sends, to *server* and of a job that it fits; the status of the answer."""
    assert line.count("localhost:8080") == 1
    request = Request(line)
    job_id = ""
    if "{job_id}" in line:
        # A cancel is of a job that waits, a dead letter of one that has died.
        waiting = {"type": "email.send", "delay": "1h"} if request.method == "DELETE" else {"type": "email.send", "payload": {"to": "a@example.com"}}
        job_id = server.dead() if "/dlq/" in line else server.create(**waiting)
    url = request.url.replace("http://localhost:8080", server.url).replace("{job_id}", job_id)
    if shutil.which("curl") is None:
        return request.send(url)
    words = [url if word == request.url else word for word in request.words]
    done = subprocess.run(
        ["curl", "-s", "-o", "answer", "-w", "%{http_code}", *words], cwd=server.site.folder, capture_output=True, text=True, check=True
    )
    return int(done.stdout)


# Objects and settings ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "text"), OBJECTS, ids=[name for name, _ in OBJECTS])
def test_every_object_of_the_page_is_what_its_schema_says(document: dict[str, Any], name: str, text: str) -> None:
    """All fields, too: an answer has each of them."""
    value = json.loads(text)
    declared = document["components"]["schemas"][name]

    jsonschema.Draft202012Validator({"$ref": f"#/components/schemas/{name}", "components": document["components"]}).validate(value)
    assert set(value) <= set(declared["properties"])
    assert len(value) == len(declared["required"]) or declared.get("additionalProperties") is False


def test_every_example_of_a_body_is_what_its_schema_says(document: dict[str, Any]) -> None:
    bodies = [
        one["requestBody"]["content"]["application/json"] for path in document["paths"].values() for one in path.values() if "requestBody" in one
    ]

    for body in bodies:
        jsonschema.Draft202012Validator(body["schema"] | {"components": document["components"]}).validate(body["example"])
    assert len(bodies) >= 5


def test_no_object_of_the_page_is_left_unchecked() -> None:
    assert len(OBJECTS) == len(re.findall(r"^```json$", PAGE, re.MULTILINE)) >= 5


@pytest.mark.parametrize("text", re.findall(r"^```toml\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE))
def test_every_config_file_of_the_page_is_valid(tmp_path: Path, text: str) -> None:
    (tmp_path / "jobqueue.toml").write_text(text)
    section = load_settings(tmp_path / "jobqueue.toml", environ={}, plugins=Plugins.load()).section("api")
    assert len(KeyRing(section.keys, tmp_path)) == text.count("[[api.keys]]")
    assert tomllib.loads(text)["api"].keys() <= {"keys", "cors_origins"}


# Errors --------------------------------------------------------------------------------------------------------------------------------


def test_the_table_of_errors_has_each_code_that_there_is_with_its_status() -> None:
    rows = re.findall(r"^\| (\d{3}) \| `(\w+)` \|", PAGE, re.MULTILINE)

    assert sorted(rows) == sorted(set(rows))
    assert {(int(status), code) for status, code in rows} == refusals() | conflicts() | foreseen()


def calls(package: str) -> Iterator[tuple[ast.AST, ast.Call, str]]:
    """Each call in a package, with the function that it stands in and the name of what is called."""
    for path in Path(package).parent.rglob("*.py"):
        for function in ast.walk(ast.parse(path.read_text())):
            if isinstance(function, ast.FunctionDef | ast.Module):
                for call in ast.walk(function):
                    if isinstance(call, ast.Call):
                        yield function, call, ast.unparse(call.func).rpartition(".")[2]


def refusals() -> set[tuple[int, str]]:
    """What the API refuses by itself: calls that give a status, and then a code."""
    found = set()
    for _function, call, name in calls(str(jobqueue_api.__file__)):
        if name in (Refusal.__name__, Held.take.__name__, Held.held.__name__, "RawAnswer", "_problem"):
            values = [argument.value for argument in call.args if isinstance(argument, ast.Constant)]
            status = [value for value in values if isinstance(value, int)]
            code = [value for value in values if isinstance(value, str) and re.fullmatch(r"[a-z]+(_[a-z]+)*", value)]
            if status and code:
                found.add((status[0], code[0]))
    assert {(401, "unauthorized"), (429, "too_many_waits"), (408, "request_timeout"), (422, "invalid")} <= found
    return found


def conflicts() -> set[tuple[int, str]]:
    """What the core says by ``Conflict(code=...)``: one word, or a word for each of several messages."""
    found = set()
    for function, call, name in calls(str(jobqueue_core.__file__)):
        if name == "Conflict":
            (code,) = (keyword.value for keyword in call.keywords if keyword.arg == "code")
            if isinstance(code, ast.Constant):
                found.add((409, str(code.value)))
            elif not isinstance(function, ast.Module):
                (messages,) = (one for one in ast.walk(function) if isinstance(one, ast.Dict))
                found |= {(409, str(key.value)) for key in messages.keys if isinstance(key, ast.Constant)}
    assert {(409, "finished"), (409, "key_taken"), (409, "idempotency_conflict")} <= found
    return found


def foreseen() -> set[tuple[int, str]]:
    """What the table of errors says, and what falcon refuses."""
    table = ast.parse((Path(str(jobqueue_api.__file__)).parent / "http" / "problems.py").read_text())
    rows = [[part.value for part in row.elts if isinstance(part, ast.Constant)] for row in ast.walk(table) if isinstance(row, ast.Tuple)]
    found = {(row[0], row[1]) for row in rows if len(row) == 2 and isinstance(row[0], int) and isinstance(row[1], str)}
    found |= {(problem_of(error).status, problem_of(error).body["code"]) for error in (JobNotFound("job", "x"), BrokerUnavailable("x"), ValueError())}
    assert {(503, "broker_full"), (404, "not_found"), (500, "internal")} <= found
    return found | {(405, "method_not_allowed")}


# TypeScript ----------------------------------------------------------------------------------------------------------------------------


def test_what_the_typescript_program_uses_is_in_the_document(document: dict[str, Any]) -> None:
    """Whether it compiles is not checked here; the page says with what it was."""
    schemas = document["components"]["schemas"]
    operations = re.findall(r'client\.(\w+)\("([^"]+)", \{\n(.*?)\n *\}\)', TYPESCRIPT, re.DOTALL)
    for method, path, options in operations:
        operation = document["paths"][path][method.lower()]
        for place, name in re.findall(r'(path|query|header): \{ "?([\w-]+)', options):
            assert (place, name) in {(one["in"], one["name"]) for one in operation["parameters"]}
    (body,) = re.findall(r"body: \{ (.*) \}", TYPESCRIPT)
    assert set(re.findall(r"(\w+): ", re.sub(r"\{.*\}", "", body))) <= set(schemas["JobRequest"]["properties"])
    for variable, name in (("job", "Job"), ("created", "Job"), ("problem", "Error"), ("one", "ErrorDetail")):
        used = set(re.findall(rf"\b{variable}\.(\w+)", TYPESCRIPT)) - {"details.map", "map"}
        assert used, variable
        assert used <= set(schemas[name]["properties"])
    assert set(re.findall(r'components\["schemas"\]\["(\w+)"\]', TYPESCRIPT)) <= set(schemas)
    assert len(operations) == 2
