"""What Dockerfile and compose.yaml say, and a machine on which their services are processes: no engine that runs containers is needed."""

from __future__ import annotations

import contextlib
import fnmatch
import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

import attrs
import yaml

__all__ = [
    "COMPOSE",
    "LASTING",
    "OURS",
    "ROOT",
    "SERVICES",
    "VARIABLE",
    "Host",
    "compose",
    "context",
    "copy_context",
    "instructions",
    "seconds",
    "words_of",
]

ROOT: Final = Path(__file__).parents[1]
_DOCKERFILE: Final = [
    (line.split(None, 1)[0], line.split(None, 1)[1].strip())
    for line in re.sub(r"^#.*\n|\\\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE).splitlines()
    if line.strip()
]
"""Its instructions."""
VARIABLE: Final = re.compile(r"\$\{(?P<name>\w+)(?P<empty>:?)-(?P<default>[^}]*)\}")
COMPOSE: Final = (ROOT / "compose.yaml").read_text()


def compose(**environ: str) -> dict[str, Any]:
    """The services of compose.yaml, as with these variables."""

    def value(match: re.Match[str]) -> str:
        given = environ.get(match["name"])
        return match["default"] if given is None or (match["empty"] and not given) else given

    found: dict[str, Any] = yaml.safe_load(VARIABLE.sub(value, COMPOSE))
    return found


SERVICES: Final = compose()["services"]
OURS: Final = {name: one for name, one in SERVICES.items() if "build" in one}
LASTING: Final = {name: one for name, one in OURS.items() if one["restart"] != "no"}


def instructions(name: str) -> list[str]:
    return [rest for instruction, rest in _DOCKERFILE if instruction == name]


def words_of(service: str) -> list[str]:
    """What a container of that service runs."""
    one = SERVICES[service]
    return [*(one.get("entrypoint") or json.loads(instructions("ENTRYPOINT")[-1])), *one.get("command", [])]


def seconds(duration: str) -> float:
    """A duration as compose reads it."""
    assert re.fullmatch(r"(?:[\d.]+(?:ms|[smhd]))+", duration)
    units = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86_400}
    return sum(float(number) * units[unit] for number, unit in re.findall(r"([\d.]+)(ms|[smhd])", duration))


@cache
def context() -> frozenset[str]:
    """The files of the project that .dockerignore leaves to a build."""
    rules = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    # No exception leads below the first level, so what is left out there need not be gone through.
    sent = [path for path in ROOT.iterdir() if _is_sent(path.name, rules)]
    files = [path for one in sent for path in (one.rglob("*") if one.is_dir() else [one]) if path.is_file()]
    return frozenset(name for path in files if _is_sent(name := path.relative_to(ROOT).as_posix(), rules))


def _is_sent(name: str, rules: list[str]) -> bool:
    sent = True
    for rule in rules:
        pattern = rule.removeprefix("!")
        candidates = [name, *map(str, Path(name).parents)]
        # "**/" is also nothing; a rule for a folder is one for all that is in it.
        if any(fnmatch.fnmatch(one, each) for one in candidates for each in (pattern, pattern.removeprefix("**/"))):
            sent = rule.startswith("!")
    return sent


def copy_context(folder: Path) -> None:
    for name in context():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)


@cache
def _as_process_1() -> list[str]:
    """What makes a command the first process of a namespace, as in a container; nothing where that is not allowed."""
    words = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
    with contextlib.suppress(OSError):
        if subprocess.run([*words, "true"], capture_output=True, check=False).returncode == 0:
            return words
    return []


@attrs.define
class Host:
    """A machine on which the services of compose.yaml are processes: names, ports and folders of containers are other ones here."""

    folder: Path
    places: Mapping[str, str]
    running: dict[str, subprocess.Popen[bytes]] = attrs.field(factory=dict)

    def here(self, text: str) -> str:
        for there, here in self.places.items():
            text = text.replace(there, here)
        return text

    def environ(self, service: str) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if name in ("HOME", "TMPDIR", "LANG", "PYTHONPATH") or name.startswith("COVERAGE")}
        image = dict(pair.split("=", 1) for rest in instructions("ENV") for pair in rest.split())
        given = {name: self.here(value) for name, value in SERVICES[service]["environment"].items() if value}
        return {**kept, **image, **given, "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])}

    def call(self, service: str, words: list[str]) -> subprocess.CompletedProcess[str]:
        command = [self.here(word) for word in words]
        return subprocess.run(command, cwd=self.folder, env=self.environ(service), capture_output=True, text=True, timeout=60, check=False)

    def check(self, service: str) -> subprocess.CompletedProcess[str]:
        """Its health check."""
        (kind, *words) = SERVICES[service]["healthcheck"]["test"]
        assert kind == "CMD"
        return self.call(service, words)

    def is_healthy(self, service: str) -> bool:
        assert self.running[service].poll() is None, self.log(service)
        return self.check(service).returncode == 0

    def start(self, service: str) -> None:
        with (self.folder / f"{service}.log").open("wb") as log:
            self.running[service] = subprocess.Popen(
                [*_as_process_1(), *words_of(service)], cwd=self.folder, env=self.environ(service), stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def stop(self, service: str) -> None:
        """Send the image's signal to process 1."""
        pid = self.running[service].pid
        if _as_process_1():
            pid = int(Path(f"/proc/{pid}/task/{pid}/children").read_text())
        os.kill(pid, signal.Signals[instructions("STOPSIGNAL")[0]])

    def log(self, service: str) -> str:
        return (self.folder / f"{service}.log").read_text()

    def request(self, method: str, path: str, key: str | None = None, body: object = None) -> tuple[int, Any]:
        """Ask the API with the key of that name."""
        headers = {"Content-Type": "application/json"}
        if key is not None:
            headers["Authorization"] = f"Bearer {Path(self.here(f'/run/jobqueue/keys/{key}')).read_text()}"
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", int(self.here("8080")), timeout=20)) as connection:
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
