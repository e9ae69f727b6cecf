"""``jobqueue openapi`` and ``jobqueue api-key``."""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from jobqueue_api.commands import api_key, openapi
from jobqueue_cli.root import Root
from jobqueue_core.keys import KeyRing, Role
from jobqueue_core.plugins import Plugins
from jobqueue_core.service import CommandPlugin
from jobqueue_core.settings import load_settings

yaml = pytest.importorskip("yaml", reason="the extra api")
pytest.importorskip("falcon", reason="the extra api")

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)
    for variable in ("JOBQUEUE_CONFIG", "API_PORT"):
        monkeypatch.delenv(variable, raising=False)
    root = Root(
        {
            str(one.name): CommandPlugin(name=str(one.name), help="", target=f"jobqueue_api.commands:{one.callback.__name__}")
            for one in (api_key, openapi)
        }
    )
    return lambda *words: CliRunner().invoke(root, words, prog_name="jobqueue")


def test_the_document_is_the_same_as_yaml_and_as_json_and_opens_no_database(run: Run, tmp_path: Path) -> None:
    as_yaml, as_json = run("openapi"), run("openapi", "--json")

    document = json.loads(as_json.stdout)
    assert yaml.safe_load(as_yaml.stdout) == document
    assert (document["openapi"], document["servers"]) == ("3.1.0", [{"url": "/"}])
    assert "/api/v1/jobs" in document["paths"]
    assert list(tmp_path.iterdir()) == []


def test_the_document_names_the_path_under_which_the_api_is_mounted(run: Run, tmp_path: Path) -> None:
    (tmp_path / "jobqueue.toml").write_text('[api]\npath_prefix = "/jobs"\n')

    assert json.loads(run("openapi", "--json", "-c", "jobqueue.toml").stdout)["servers"] == [{"url": "/jobs"}]


@pytest.mark.parametrize("role", list(Role))
def test_a_key_is_shown_beside_its_table_which_lets_its_holder_in(run: Run, tmp_path: Path, role: Role) -> None:
    result = run("api-key", "ci", "--role", role.value)

    secret = result.stderr.removeprefix("the key, shown this once: ").strip()
    assert secret not in result.stdout
    (tmp_path / "jobqueue.toml").write_text(f"[api]\nport = 8080\n{result.stdout}")
    settings = load_settings(tmp_path / "jobqueue.toml", environ={}, plugins=Plugins.load())
    holder = KeyRing(settings.section("api").keys, tmp_path).holder(secret)
    assert holder is not None
    assert (holder.name, holder.role) == ("ci", role)


def test_tables_can_be_appended_one_after_the_other(run: Run) -> None:
    text = "[api]\nport = 8080\n" + "".join(run("api-key", name, "--role", "read").stdout for name in ("one", "two"))

    assert [one["name"] for one in tomllib.loads(text)["api"]["keys"]] == ["one", "two"]


def test_a_key_as_json_is_on_stdout_only_and_another_one_each_time(run: Run) -> None:
    first, second = (run("api-key", "ci", "--role", "write", "--json") for _ in range(2))

    made = json.loads(first.stdout)
    assert (made["name"], made["role"], first.stderr) == ("ci", "write", "")
    assert made["sha256"] == hashlib.sha256(made["key"].encode()).hexdigest()
    assert len(made["key"]) >= 43
    assert json.loads(second.stdout)["key"] != made["key"]


@pytest.mark.parametrize(
    "words", [["api-key", "ci"], ["api-key", "a b", "--role", "read"], ["api-key", 'a"', "--role", "read"], ["api-key", "ci", "--role", "root"]]
)
def test_what_the_config_file_would_not_take_is_a_usage_error_and_makes_no_key(run: Run, words: list[str]) -> None:
    result = run(*words)

    assert (result.exit_code, result.stdout) == (2, "")
    assert "jobqueue_" not in result.stderr
