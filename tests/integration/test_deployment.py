"""Dockerfile, compose.yaml and the config file beside them hold what they say: their commands run here, without an engine that runs containers."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import psycopg
import pytest
from cli_site import eventually
from deployment import COMPOSE, LASTING, OURS, ROOT, SERVICES, VARIABLE, Host, compose, context, copy_context, instructions, seconds, words_of
from servers import PostgresServer
from servers.ports import free_port

from jobqueue_core.keys import KeyRing
from jobqueue_core.plugins import Plugins
from jobqueue_core.service import Patience
from jobqueue_core.settings import Settings, load_settings

PROJECT: Final = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXAMPLE: Final = (ROOT / ".env.example").read_text()
BY_CONTENT: Final = (0b11).to_bytes(4, "little")
"""The flags of a compiled module that holds whatever the time of its source is."""


# The image -------------------------------------------------------------------------------------------------------------------------------


def test_the_build_is_sent_what_it_copies_and_no_secret_or_history() -> None:
    copied = [word for rest in instructions("COPY") if not rest.startswith("--from") for word in rest.split()[:-1]]

    assert all((ROOT / name).exists() for name in copied)
    assert {name.partition("/")[0] for name in context()} == {name.partition("/")[0] for name in copied}
    assert not [name for name in context() if re.search(r"(^|/)(\.|tests/|jobqueue\.(db|toml))|\.pyc$", name)]


def test_what_is_copied_is_enough_to_build_the_whole_distribution(tmp_path: Path) -> None:
    copy_context(source := tmp_path / "source")

    build = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"
    for folder in (source, source / "handlers_example"):
        done = subprocess.run([sys.executable, "-c", build, tmp_path], cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    built = {name for wheel in tmp_path.glob("*.whl") for name in zipfile.ZipFile(wheel).namelist()}
    wanted = {
        f"{package.replace('.', '/')}/{path.name}"
        for package, folder in PROJECT["tool"]["setuptools"]["package-dir"].items()
        for path in (ROOT / folder).iterdir()
        if path.suffix in (".py", ".sql", ".typed")
    }
    assert wanted - built == set()
    assert "handlers_example/handlers.py" in built


@pytest.mark.slow
def test_what_the_build_runs_installs_programs_that_start_without_compiling_anything(tmp_path: Path) -> None:
    """With an interpreter that has nothing, from a package index."""
    copy_context(source := tmp_path / "source")
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "base"], check=True)
    kept = {name: value for name, value in os.environ.items() if name.startswith("PIP_") or name in ("HOME", "TMPDIR")}
    environ = {**kept, "PATH": os.pathsep.join([str(tmp_path / "base" / "bin"), os.environ["PATH"]]), "HANDLERS": "./handlers_example"}
    stage = re.sub(r"--mount=\S+ +", "", "\n".join(instructions("RUN")[:2])).replace("/installed", str(tmp_path / "installed"))
    subprocess.run(["sh", "-euc", stage], cwd=source, env=environ, check=True)

    (packages,) = tmp_path.glob("installed/lib/python*/site-packages")
    environ |= {"PYTHONPATH": str(packages), "PATH": os.pathsep.join([str(tmp_path / "installed" / "bin"), environ["PATH"]])}
    handlers = subprocess.run(["jobqueue", "handlers"], cwd=tmp_path, env=environ, capture_output=True, text=True, check=True).stdout
    assert "flaky.fetch" in handlers
    checked = subprocess.run(["jobqueue-run", "--check"], cwd=tmp_path, env=environ, capture_output=True, text=True, check=True).stdout
    assert {line.split()[1] for line in checked.splitlines() if line.startswith("role:")} >= {"role=api", "role=scheduler", "role=worker"}
    compiled = [path.read_bytes()[4:8] for path in packages.rglob("*.pyc")]
    assert len(compiled) >= len(list(packages.rglob("*.py")))
    assert set(compiled) == {BY_CONTENT}


def test_the_image_runs_jobqueue_run_itselfas_process_1_and_not_as_root() -> None:
    assert json.loads(instructions("ENTRYPOINT")[-1]) == ["jobqueue-run"]
    assert instructions("STOPSIGNAL") == ["SIGTERM"]
    (user,) = instructions("USER")
    assert re.fullmatch(r"([1-9]\d*):([1-9]\d*)", user)
    assert f"--uid {user.partition(':')[0]}" in " ".join(instructions("RUN"))


def test_the_image_is_installed_with_all_extras() -> None:
    (install,) = [rest for rest in instructions("RUN") if "pip install" in rest]

    assert '".[all]"' in install


def test_every_folder_where_a_service_mounts_a_volume_is_made_in_the_image() -> None:
    """A volume takes its owner from there; else it would be root's, and nobody could write to it."""
    (made,) = [shlex.split(command) for rest in instructions("RUN") for command in rest.split("&&") if command.strip().startswith("install")]
    mounted = {mount.split(":")[1] for one in OURS.values() for mount in one["volumes"] if mount.partition(":")[0] in compose()["volumes"]}

    assert mounted <= set(made)
    assert made[made.index("--owner") + 1] == made[made.index("--group") + 1] == "jobqueue"


# The services ----------------------------------------------------------------------------------------------------------------------------


def test_every_program_that_a_service_runs_is_in_the_image() -> None:
    programs = {words_of(name)[0] for name in OURS} | {one["healthcheck"]["test"][1] for one in LASTING.values()}

    assert programs <= {*PROJECT["project"]["scripts"], "python"}


def test_every_service_that_lasts_has_a_health_check_and_waits_for_what_it_needs() -> None:
    for name, one in SERVICES.items():
        assert ("healthcheck" in one) == (one["restart"] != "no"), name
        for other, wait in one.get("depends_on", {}).items():
            ends = SERVICES[other]["restart"] == "no"
            assert wait["condition"] == ("service_completed_successfully" if ends else "service_healthy"), f"{name} -> {other}"
    assert all(one["depends_on"].keys() >= {"redis", "migrate"} for one in LASTING.values())


def test_a_health_check_has_longer_than_a_server_that_does_not_answer_takes() -> None:
    assert all(seconds(one["healthcheck"]["timeout"]) > 6 for one in LASTING.values())


@pytest.mark.parametrize("timeout", ["", "30s", "1.5s", "5m", "1h30m"])
def test_a_service_is_given_longer_to_stop_than_it_may_take(timeout: str) -> None:
    grace = seconds(timeout) if timeout else Settings().worker.shutdown_timeout.total_seconds()
    # The recorder has a time of its own when the workers have gone.
    longest = grace + 2 * Patience().beyond_grace.total_seconds()

    for one in compose(WORKER_SHUTDOWN_TIMEOUT=timeout)["services"].values():
        if "build" in one:
            assert seconds(one["stop_grace_period"]) > longest


def test_only_the_api_is_published_and_only_to_this_machine() -> None:
    assert {name: one["ports"] for name, one in SERVICES.items() if "ports" in one} == {"api": ["127.0.0.1:8080:8080"]}
    assert compose(API_PORT="9000")["services"]["api"]["ports"] == ["127.0.0.1:9000:8080"]
    assert compose()["networks"]["servers"] == {"internal": True}
    assert {name for name, one in SERVICES.items() if "default" in one["networks"]} == {"api", "worker"}


def test_our_services_can_change_nothing_of_their_containers() -> None:
    for one in OURS.values():
        assert one["read_only"]
        assert one["cap_drop"] == ["ALL"]
        assert "no-new-privileges:true" in one["security_opt"]


def test_every_variable_that_may_be_set_is_passed_on_and_in_the_example() -> None:
    listed = set(re.findall(r"^(?:# )?([A-Z_]+)=", EXAMPLE, re.MULTILINE))
    variables = set(re.findall(r"^([A-Z_]+)=", EXAMPLE, re.MULTILINE))
    environment = OURS["worker"]["environment"]

    assert {match["name"] for match in VARIABLE.finditer(COMPOSE)} <= listed
    assert variables == {*environment, "API_PORT"}
    # What is fixed must not come from a .env for another place; what is passed on has no value of its own.
    assert {name for name, value in environment.items() if value} == {"JOBQUEUE_CONFIG", "REDIS_URL", "DATABASE_URL"}


@pytest.mark.parametrize("text", re.findall(r"^```toml\n(.*?)^```$", (ROOT / "docs" / "deploying.md").read_text(), re.DOTALL | re.MULTILINE))
def test_every_config_file_of_the_page_is_valid(tmp_path: Path, text: str) -> None:
    (tmp_path / "jobqueue.toml").write_text(text)
    section = load_settings(tmp_path / "jobqueue.toml", environ={}, plugins=Plugins.load()).section("api")
    assert section.keys or section.trusted_proxies


# All of it, in processes -----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def redis_url_as_composed(start_redis: Any) -> str:
    """The address of a Redis with the settings of compose.yaml."""
    words = SERVICES["redis"]["command"][1:]
    server = start_redis(options={name.removeprefix("--"): value for name, value in zip(words[::2], words[1::2], strict=True)})
    return f"127.0.0.1:{server.port}"


@pytest.fixture
def host(tmp_path: Path, redis_url_as_composed: str, postgres_server: PostgresServer) -> Iterator[Host]:
    for program in ("jobqueue", "jobqueue-run"):
        assert shutil.which(program, path=Path(sys.executable).parent), f"the console script {program} is not installed: pip install -e ."
    places = {
        "redis:6379": redis_url_as_composed,
        "postgres:5432": f"127.0.0.1:{postgres_server.port}",
        "/etc/jobqueue": str(tmp_path),
        "/run/jobqueue": str(tmp_path / "run"),
        "8080": str(free_port()),
    }
    host = Host(tmp_path, places)
    (tmp_path / "jobqueue.toml").write_text(host.here((ROOT / ".compose" / "jobqueue.toml").read_text()))
    for name in ("database", "keys"):
        (tmp_path / "run" / name).mkdir(parents=True)
    yield host
    for process in host.running.values():
        process.kill()
        process.wait()


def let_in(server: PostgresServer, password: str) -> None:
    """Do what the image of PostgreSQL does when it makes the database: a role with that password, which it asks for."""
    user, database = (SERVICES["postgres"]["environment"][name] for name in ("POSTGRES_USER", "POSTGRES_DB"))
    server.execute(f"CREATE ROLE {user} LOGIN PASSWORD '{password}'")
    server.execute(f"CREATE DATABASE {database} OWNER {user}")
    file = server.data / "pg_hba.conf"
    file.write_text(f"host all {user} 127.0.0.1/32 scram-sha-256\n{file.read_text()}")
    server.execute("SELECT pg_reload_conf()")


def made_secrets(host: Host) -> dict[str, str]:
    done = host.call("secrets", words_of("secrets"))
    assert done.returncode == 0, done.stderr
    return {str(file.relative_to(host.folder)): file.read_text() for file in (host.folder / "run").rglob("*") if file.is_file()}


def test_the_keys_are_secret_different_and_made_once(host: Host) -> None:
    before = made_secrets(host)

    assert made_secrets(host) == before
    assert all(len(text) >= 43 for text in before.values())
    assert len(set(before.values())) == len(before) == 5
    assert {file.stat().st_mode & 0o077 for file in (host.folder / "run").rglob("*") if file.is_file()} == {0}
    settings = load_settings(host.folder / "jobqueue.toml", environ=host.environ("api"), plugins=Plugins.load())
    ring = KeyRing(settings.section("api").keys, host.folder)
    holders = {name.rpartition("/")[2]: ring.holder(text) for name, text in before.items() if "/keys/" in name}
    assert {name: holder.role.value for name, holder in holders.items() if holder} == {"admin": "admin", "producer": "write", "monitor": "read"}


def test_everything_comes_up_as_composed_runs_a_job_and_stops_in_order(host: Host, postgres_server: PostgresServer) -> None:
    let_in(postgres_server, made_secrets(host)["run/database/password"])
    migrated = host.call("migrate", words_of("migrate"))
    assert migrated.returncode == 0, migrated.stderr
    for service in LASTING:
        host.start(service)
    for service in LASTING:
        eventually(lambda service=service: host.is_healthy(service))
    is_ready = [*SERVICES["postgres"]["healthcheck"]["test"][1:], f"--port={postgres_server.port}"]
    assert subprocess.run(is_ready, executable=postgres_server.program.path.with_name(is_ready[0]), check=False).returncode == 0

    job = {"type": "flaky.fetch", "payload": {"failures": 1}}
    assert host.request("POST", "/api/v1/jobs", None, job)[0] == 401
    assert host.request("POST", "/api/v1/jobs", "monitor", job)[0] == 403
    status, made = host.request("POST", "/api/v1/jobs", "producer", job)
    assert status == 201
    eventually(lambda: host.request("GET", f"/api/v1/jobs/{made['id']}?wait=5s", "monitor")[1]["state"] == "completed")
    hourly = {"name": "hourly", "expression": "@hourly", "type": "flaky.fetch"}
    assert host.request("POST", "/api/v1/schedules", "producer", hourly)[0] == 403
    assert host.request("POST", "/api/v1/schedules", "admin", hourly)[0] == 201
    assert host.is_healthy("scheduler")

    for service in LASTING:
        host.stop(service)
    for service, process in host.running.items():
        assert process.wait(seconds(SERVICES[service]["stop_grace_period"])) == 0, host.log(service)

    with psycopg.connect(host.environ("worker")["DATABASE_URL"]) as database:
        assert database.execute("SELECT state FROM job_executions ORDER BY run").fetchall() == [("failed",), ("completed",)]
        database.execute("UPDATE job_schedules SET next_run = next_run - interval '2 hours'")
    assert "no worker of host" in host.check("worker").stdout
    assert "refused" in host.check("api").stderr
    assert host.check("scheduler").stderr == "due for more than a minute: ['hourly']\n"
