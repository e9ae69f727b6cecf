"""``jobqueue new``: which names it takes, and what it writes. That what it writes can be installed is an integration test."""

from __future__ import annotations

import ast
import json
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from jobqueue_cli.plugin import jobqueue_commands
from jobqueue_cli.root import Root

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)
    root = Root({one.name: one for one in jobqueue_commands()})
    return lambda *arguments: CliRunner().invoke(root, ["new", *arguments], prog_name="jobqueue")


@pytest.mark.parametrize(("kind", "group", "module"), [("handlers", "jobqueue.handlers", "handlers"), ("plugin", "jobqueue.plugins", "plugin")])
def test_a_package_has_an_entry_point_a_module_and_a_test(run: Run, tmp_path: Path, kind: str, group: str, module: str) -> None:
    result = run(kind, "acme-jobs", "--json")
    assert result.exit_code == 0
    answer = json.loads(result.stdout)
    assert sorted(answer["files"]) == sorted(str(one.relative_to(tmp_path)) for one in tmp_path.rglob("*") if one.is_file())
    project = tomllib.loads((tmp_path / "acme-jobs" / "pyproject.toml").read_text())["project"]
    assert (project["name"], project["entry-points"]) == ("acme-jobs", {group: {"acme-jobs": f"acme_jobs.{module}"}})
    assert (tmp_path / "acme-jobs" / "tests" / f"test_{module}.py").is_file()


@pytest.mark.parametrize("kind", ["handlers", "plugin"])
def test_every_file_of_a_package_can_be_read_and_no_placeholder_is_left(run: Run, tmp_path: Path, kind: str) -> None:
    run(kind, "acme_2-jobs")
    files = [one for one in (tmp_path / "acme_2-jobs").rglob("*") if one.is_file()]
    assert all("$" not in one.read_text() for one in files)
    assert [ast.parse(one.read_text()) for one in files if one.suffix == ".py"] != []
    assert (tmp_path / "acme_2-jobs" / "src" / "acme_2_jobs" / "py.typed").is_file()


def test_an_existing_folder_is_refused_and_left_alone(run: Run, tmp_path: Path) -> None:
    (tmp_path / "acme-jobs").mkdir()
    result = run("handlers", "acme-jobs", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stderr.splitlines()[-1])["code"] == "exists"
    assert list((tmp_path / "acme-jobs").iterdir()) == []


@pytest.mark.parametrize(
    "name",
    ["", "Acme", "1a", "a--b", "a-", "-a", "a.b", "a/b", "../a", "a b", "a\n", "ü", "class", "match", "json", "jobqueue", "jobqueue-core", "a" * 61],
)
def test_an_illegal_name_is_a_usage_error_and_writes_nothing(run: Run, tmp_path: Path, name: str) -> None:
    result = run("handlers", "--", name)
    assert result.exit_code == 2
    assert result.stderr.startswith("error: Invalid value for 'NAME'")
    assert list(tmp_path.iterdir()) == []
