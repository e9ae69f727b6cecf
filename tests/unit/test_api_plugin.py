"""What the plugin ``api`` offers, and what ``doctor`` says of its keys."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from jobqueue_api import plugin
from jobqueue_core.app import App
from jobqueue_core.checks import Finding

ANONYMOUS = '[api]\nhost = "0.0.0.0"\nallow_anonymous = true\n'


def app(folder: Path, config: str = "") -> App:
    path = folder / "jobqueue.toml"
    path.write_text(config)
    path.chmod(0o600)
    return App.from_config(path, environ={})


def findings(folder: Path, config: str) -> list[Finding]:
    return examine(app(folder, config))


def examine(one: App, *, fix: bool = False) -> list[Finding]:
    return [finding for check in plugin.jobqueue_checks(one.settings) for finding in check.run(one, fix)]


def test_the_role_reloads_and_runs_where_its_extra_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    (role,) = plugin.jobqueue_services()
    monkeypatch.setattr(plugin, "find_spec", lambda name: None)
    (lacking,) = plugin.jobqueue_services()

    assert (role.name, role.reloads, role.by_default) == ("api", True, True)
    assert not lacking.by_default


@pytest.mark.parametrize("missing", ["falcon", "gunicorn"])
def test_without_its_extra_the_role_says_what_to_install(tmp_path: Path, missing: str) -> None:
    # In a process of its own: in this one, modules that are imported again would not be those that other tests have.
    (tmp_path / "jobqueue.toml").touch()
    program = """
import sys
from pathlib import Path
sys.modules[sys.argv[1]] = None
from jobqueue_api import plugin
from jobqueue_core.app import App
(role,) = plugin.jobqueue_services()
role.open(App.from_config(Path(sys.argv[2]), environ={}))
"""
    words = [sys.executable, "-c", program, missing, str(tmp_path / "jobqueue.toml")]

    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)

    assert done.returncode == 1
    assert "PluginError: plugin 'api': needs the extra 'api': pip install 'jobqueue[api]'" in done.stderr


def test_doctor_says_nothing_of_an_api_for_this_machine_only(tmp_path: Path) -> None:
    assert findings(tmp_path, "") == []


def test_doctor_warns_of_an_api_that_anybody_may_use(tmp_path: Path) -> None:
    (finding,) = findings(tmp_path, ANONYMOUS)

    assert finding.level == "warning"
    assert "whoever reaches 0.0.0.0:8080 may do everything" in finding.text


def test_doctor_counts_keys_that_are_well_kept(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("secret-in-a-file\n")
    (tmp_path / "key").chmod(0o600)
    keys = '[[api.keys]]\nname = "a"\nrole = "read"\nkey = "secret-in-the-config"\n[[api.keys]]\nname = "b"\nrole = "read"\nkey_file = "key"\n'

    (finding,) = findings(tmp_path, keys)

    assert (finding.level, finding.text) == ("ok", "api: 2 keys")


def test_doctor_warns_of_files_with_keys_that_everybody_may_read(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("secret-in-a-file\n")
    (tmp_path / "key").chmod(0o644)
    keys = '[[api.keys]]\nname = "a"\nrole = "read"\nkey = "secret-in-the-config"\n[[api.keys]]\nname = "b"\nrole = "read"\nkey_file = "key"\n'
    one = app(tmp_path, keys)
    (tmp_path / "jobqueue.toml").chmod(0o604)

    found = examine(one)

    assert [(finding.level, finding.remedy) for finding in found] == [
        ("warning", f"chmod o-r {tmp_path / 'key'}"),
        ("warning", f"chmod o-r {tmp_path / 'jobqueue.toml'}"),
    ]
    assert "secret" not in str(found)


def test_doctor_names_a_key_file_that_is_missing(tmp_path: Path) -> None:
    (finding,) = findings(tmp_path, '[[api.keys]]\nname = "a"\nrole = "read"\nkey_file = "missing"\n')

    assert finding.level == "warning"
    assert str(tmp_path / "missing") in finding.text
