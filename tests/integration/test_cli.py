"""The console script ``jobqueue`` in processes of its own, on a file of its own, with a real worker."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import attrs
import pytest
from brokers import MOSTLY_SQLITE
from cli_site import Site, eventually, make_site, worker, write_distribution

pytest.importorskip("handlers_example", reason="its handlers are the jobs of these tests")

UNKNOWN = "0199a5d0-0000-7000-8000-000000000000"
HEAVY = ("asyncio", "cattrs", "redis", "rich", "sqlite3")
LISTS = ["jobs", "queues", "dlq list", "dlq groups", "executions", "workers", "plugins", "handlers"]


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """A site with the embedded broker."""
    return make_site(tmp_path)


@pytest.fixture
def any_site(tmp_path: Path, broker_config: str) -> Site:
    """A site with each broker."""
    return make_site(tmp_path, broker_config)


@pytest.fixture(scope="module")
def working(tmp_path_factory: pytest.TempPathFactory, module_broker_config: str) -> Iterator[Site]:
    """A site with a running worker, on each broker."""
    site = make_site(tmp_path_factory.mktemp("working"), module_broker_config)
    with worker(site):
        yield site


# The whole -----------------------------------------------------------------------------------------------------------------------------


def test_help_is_quick_because_it_imports_nothing_heavy(site: Site) -> None:
    command = [sys.executable, "-X", "importtime", "-m", "jobqueue_cli.main", "--help"]
    # Not measured: coverage brings a database of its own.
    environ = {name: value for name, value in site.environ.items() if not name.startswith("COVERAGE")}
    done = subprocess.run(command, cwd=site.folder, env=environ, capture_output=True, text=True, timeout=60, check=True)
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert imported.intersection(HEAVY) == set()
    assert "doctor" in done.stdout


def test_the_module_and_its_package_can_both_be_run(site: Site) -> None:
    package = subprocess.run(
        [sys.executable, "-m", "jobqueue_cli", "--version"], cwd=site.folder, env=site.environ, capture_output=True, text=True, timeout=60, check=True
    )
    assert package.stdout == site.call("--version").stdout != ""


def test_without_a_config_file_the_embedded_default_is_a_file_in_the_current_folder(tmp_path: Path) -> None:
    assert Site(tmp_path).json("jobs") == []
    assert (tmp_path / "jobqueue.db").is_file()


@pytest.mark.parametrize(
    "words",
    [
        ["-c", "other/jobqueue.toml", "--json", "queue", "pause", "x"],
        ["queue", "-c", "other/jobqueue.toml", "--json", "pause", "x"],
        ["queue", "pause", "x", "-c", "other/jobqueue.toml", "--json"],
    ],
    ids=" ".join,
)
def test_the_config_file_may_be_named_before_or_after_the_words_of_the_command(site: Site, words: list[str]) -> None:
    make_site(site.folder / "other")
    assert json.loads(site.call(*words).stdout)["paused"] is True
    assert (site.folder / "other" / "jobqueue.db").is_file()
    assert not (site.folder / "jobqueue.db").exists()


def test_a_wrong_configuration_exits_with_2_and_names_every_problem(site: Site) -> None:
    (site.folder / "jobqueue.toml").write_text('[worker]\nconcurrency = 0\ncolour = "red"\n')
    done = site.call("jobs", "-c", "jobqueue.toml", "--json")
    *lines, as_json = done.stderr.splitlines()
    assert (done.returncode, done.stdout) == (2, "")
    assert len(lines) == 2
    assert all(line.startswith("error: jobqueue.toml") for line in lines)
    assert (json.loads(as_json)["code"], len(json.loads(as_json)["details"])) == ("config", 2)


@pytest.mark.parametrize(("plugin", "url"), [("sqlite", "sqlite:///no/such/folder/jobqueue.db"), ("redis", "redis://:secret@127.0.0.1:1/0")])
def test_a_broker_that_is_away_exits_with_1_and_one_line(site: Site, plugin: str, url: str) -> None:
    (site.folder / "jobqueue.toml").write_text(f'[broker]\nplugin = "{plugin}"\nurl = "{url}"\n')
    done = site.call("jobs", "-c", "jobqueue.toml")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert done.stderr.startswith("error: ")
    assert "secret" not in done.stderr


@pytest.mark.parametrize("words", ["plugins --json", "plugins", "shout"])
def test_a_reader_that_has_gone_causes_no_complaint(site: Site, tmp_path: Path, words: str) -> None:
    plugin = (
        "import click\n"
        "from jobqueue_core import hookimpl\n"
        "from jobqueue_core.service import CommandPlugin\n"
        "@hookimpl\n"
        "def jobqueue_commands():\n"
        "    return [CommandPlugin(name='shout', help='Print.', target='shout_plugin:shout')]\n"
        "@click.command()\n"
        "def shout():\n"
        "    print('a plain print, which stays in the buffer')\n"
    )
    path = write_distribution(tmp_path / "path", "acme-shout", "jobqueue.plugins", "shout = shout_plugin", {"shout_plugin": plugin})
    environ = attrs.evolve(site, path=(path,)).environ
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        site.command(*words.split()), cwd=site.folder, env=environ, stdout=writer, stderr=subprocess.PIPE, text=True, timeout=60, check=False
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, "")


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_streams_that_are_closed_change_nothing(site: Site, closed: str) -> None:
    site.call("enqueue", "a.b", "--delay", "1h")
    shell = ["sh", "-c", f'exec "$@" {closed}', "sh", *site.command("queue", "purge", "default")]
    done = subprocess.run(shell, cwd=site.folder, env=site.environ, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert site.json("jobs")[0]["state"] == "cancelled"


def test_json_stays_json_where_stdout_takes_ascii_only(site: Site) -> None:
    environ = {**site.environ, "PYTHONIOENCODING": "ascii"}
    words = site.command("enqueue", "a.b", "--payload", '"ü€"', "--json")
    done = subprocess.run(words, cwd=site.folder, env=environ, capture_output=True, timeout=60, check=True)
    assert json.loads(done.stdout)["payload"] == "ü€"


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="looks at the process's open files")
def test_an_interrupt_ends_waiting_with_a_line_and_the_job_goes_on(site: Site) -> None:
    job_id = site.call("enqueue", "a.b").stdout.strip()
    process = subprocess.Popen(
        site.command("job", "wait", job_id), cwd=site.folder, env=site.environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    # It waits once it holds the file open.
    eventually(lambda: "jobqueue.db" in files_open_in(process.pid))
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    assert (process.returncode, stdout, stderr.strip()) == (1, "", "error: stopped before it was done")
    assert site.json("job", "show", job_id)["state"] == "queued"


def files_open_in(pid: int) -> set[str]:
    # What is listed may be closed before it is read.
    with contextlib.suppress(OSError):
        return {one.readlink().name for one in Path(f"/proc/{pid}/fd").iterdir()}
    return set()


# Each command --------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", LISTS)
def test_lists_are_arrays_as_json_and_lines_of_as_many_cells_otherwise(working: Site, words: str) -> None:
    objects = working.json(*words.split())
    lines = working.call(*words.split()).stdout.splitlines()
    assert isinstance(objects, list)
    assert len({line.count("\t") for line in lines}) <= 1


def test_a_job_runs_from_the_command_line_to_its_history(working: Site) -> None:
    done = working.json("enqueue", "flaky.fetch", "--payload", '{"failures": 0}', "--wait", "--wait-timeout", "30s")
    assert (done["state"], done["result"]["attempts"], done["payload"]) == ("completed", 1, {"failures": 0})
    assert working.json("job", "show", done["id"]) == done
    assert working.json("job", "wait", done["id"])["state"] == "completed"
    eventually(lambda: working.json("executions", "--job", done["id"]))
    (execution,) = working.json("executions", "--job", done["id"])
    assert (execution["state"], execution["run"]) == ("completed", 1)
    assert working.json("stats")["executions_24h"]["completed"] >= 1
    assert done["id"] in [one["id"] for one in working.json("jobs", "--type", "flaky.fetch")]


def test_a_job_dies_is_looked_at_and_lives_again(working: Site) -> None:
    dead = working.json("enqueue", "flaky.fetch", "--payload", '{"failures": 9}', "--max-retries", "0", "--wait", status=1)
    assert (dead["state"], dead["dead_reason"]) == ("dead", "retries_exhausted")
    eventually(lambda: dead["id"] in [one["job_id"] for one in working.json("dlq", "list")])
    letter = working.json("dlq", "show", dead["id"])
    assert (letter["death"], letter["payload"]) == (1, {"failures": 9})
    assert "ConnectionError" in letter["traceback"]
    assert letter["fingerprint"] in [one["fingerprint"] for one in working.json("dlq", "groups")]
    assert working.json("dlq", "retry", dead["id"], "--payload", '{"failures": 0}')["payload"] == {"failures": 0}
    assert working.json("job", "wait", dead["id"], "--timeout", "30s")["state"] == "completed"
    again = working.call("dlq", "retry", dead["id"], "--json")
    assert (again.returncode, json.loads(again.stderr.splitlines()[-1])["code"]) == (1, "not_open")


def test_a_worker_of_this_host_makes_the_container_healthy(working: Site, site: Site) -> None:
    assert working.call("doctor", "--worker").returncode == 0
    assert site.call("doctor", "--worker").returncode == 1


def test_the_doctor_reports_every_check(working: Site) -> None:
    findings = working.json("doctor")
    assert {"settings", "plugins", "handlers", "broker", "storage", "clock", "workers", "queues", "types", "outbox"} <= {
        one["check"] for one in findings
    }
    assert working.call("doctor").stdout.count("\n") == len(working.json("doctor"))


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["job", "show", UNKNOWN], 1),
        (["job", "cancel", UNKNOWN], 1),
        (["job", "wait", UNKNOWN], 1),
        (["job", "logs", UNKNOWN], 1),
        (["dlq", "show", UNKNOWN], 1),
        (["dlq", "retry", UNKNOWN], 1),
        (["dlq", "delete", UNKNOWN], 1),
        (["queue", "purge", "nobody"], 1),
        (["job", "show", "7"], 2),
        (["enqueue"], 2),
        (["enqueue", "a", "--payload", "{"], 2),
        (["jobs", "--state", "asleep"], 2),
        (["nonsense"], 2),
        (["-c", "absent.toml", "jobs"], 2),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_fails_says_so_on_stderr_alone(site: Site, words: Sequence[str], status: int) -> None:
    done = site.call(*words)
    assert (done.returncode, done.stdout) == (status, "")
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr


@MOSTLY_SQLITE
def test_what_waits_is_cancelled_paused_and_purged(any_site: Site) -> None:
    ids = [any_site.call("enqueue", "a.b", "--delay", "1h", "--payload", "-", stdin="[1]").stdout.strip() for _ in range(3)]
    assert any_site.json("job", "cancel", ids[0])["state"] == "cancelled"
    assert any_site.json("queue", "pause", "default")["paused"] is True
    assert any_site.json("queue", "resume", "default")["paused"] is False
    assert any_site.json("queue", "purge", "default") == {"queue": "default", "purged": 2}
    assert {one["state"] for one in any_site.json("jobs")} == {"cancelled"}


# A terminal ----------------------------------------------------------------------------------------------------------------------------


@MOSTLY_SQLITE
def test_a_terminal_gets_a_table_and_is_asked_before_a_purge(any_site: Site) -> None:
    job_id = any_site.call("enqueue", "a.b").stdout.strip()
    status, shown = any_site.at_a_terminal("jobs")
    heading, row = shown.splitlines()[:2]
    assert (status, heading.split()[:3], row.split()[0]) == (0, ["ID", "TYPE", "QUEUE"], job_id)
    status, shown = any_site.at_a_terminal("queue", "purge", "default", types="n\n")
    assert (status, any_site.json("job", "show", job_id)["state"]) == (1, "queued")
    assert "Cancel 1 job of queue default?" in shown
    status, _shown = any_site.at_a_terminal("queue", "purge", "default", types="y\n")
    assert (status, any_site.json("job", "show", job_id)["state"]) == (0, "cancelled")


def test_waiting_at_a_terminal_shows_progress_and_then_the_job(working: Site) -> None:
    status, shown = working.at_a_terminal("-c", "jobqueue.toml", "enqueue", "flaky.fetch", "--payload", "{}", "--wait")
    assert status == 0
    assert "completed" in shown


# Other packages ------------------------------------------------------------------------------------------------------------------------


def test_a_command_of_another_plugin_is_listed_and_takes_the_shared_options(site: Site, tmp_path: Path) -> None:
    plugin = (
        "from jobqueue_core import hookimpl\n"
        "from jobqueue_core.service import CommandPlugin\n"
        "@hookimpl\n"
        "def jobqueue_commands():\n"
        "    return [CommandPlugin(name='backlog', help='Show the backlog.', target='backlog_command:backlog')]\n"
    )
    command = (
        "import click\n"
        "@click.command()\n"
        "@click.pass_obj\n"
        "def backlog(cli):\n"
        "    found = cli.operations.queues()\n"
        "    cli.show_list([one.to_dict() for one in found], {'QUEUE': 'name', 'WAITING': lambda one: str(one['waiting'])})\n"
    )
    path = write_distribution(
        tmp_path / "path", "acme-backlog", "jobqueue.plugins", "backlog = backlog_plugin", {"backlog_plugin": plugin, "backlog_command": command}
    )
    extended = attrs.evolve(site, path=(path,))
    extended.call("enqueue", "a.b")
    assert "Show the backlog." in extended.call("--help").stdout
    assert extended.call("backlog", "-c", "jobqueue.toml").stdout == "default\t1\n"
    assert [one["name"] for one in json.loads(extended.call("--json", "backlog").stdout)] == ["default"]


def test_a_broken_plugin_stops_no_command_and_is_shown(site: Site, tmp_path: Path) -> None:
    path = write_distribution(
        tmp_path / "path", "acme-broken", "jobqueue.plugins", "broken = broken_plugin", {"broken_plugin": "raise ValueError('no')\n"}
    )
    extended = attrs.evolve(site, path=(path,))
    assert extended.json("jobs") == []
    (shown,) = (one for one in extended.json("plugins") if one["name"] == "broken")
    assert (shown["status"], shown["distribution"]) == ("broken", "acme-broken")
    assert "ValueError: no" in shown["why"]
    assert "jobqueue plugins" in extended.call("nonsense").stderr


@pytest.mark.parametrize(("kind", "finds"), [("handlers", "handlers"), ("plugin", "plugins")])
def test_a_new_package_installs_is_found_and_passes_its_own_tests(site: Site, kind: str, finds: str) -> None:
    pytest.importorskip("pip")
    assert site.call("new", kind, "acme-jobs").returncode == 0
    assert site.call("new", kind, "acme-jobs").returncode == 1
    installed = site.folder / "installed"
    install = ["pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--target", str(installed), "./acme-jobs"]
    subprocess.run([sys.executable, "-m", *install], cwd=site.folder, env=site.environ, capture_output=True, timeout=100, check=True)
    extended = attrs.evolve(site, path=(installed,))
    found = json.dumps(extended.json(finds))
    assert "acme_jobs" in found
    tests = [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider"]
    done = subprocess.run(tests, cwd=site.folder / "acme-jobs", env=extended.environ, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout
