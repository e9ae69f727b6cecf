"""The wheel: everything that is in the packages on disk, and nothing else."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SHIPPED = {".py", ".sql", ".lua", ".typed"}

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
FOLDERS: dict[str, str] = PROJECT["tool"]["setuptools"]["package-dir"]
PACKAGES: list[str] = PROJECT["tool"]["setuptools"]["packages"]


def on_disk() -> set[str]:
    """What the wheel must hold, by its path there."""
    found = set()
    for package, folder in FOLDERS.items():
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in SHIPPED and "__pycache__" not in path.parts:
                found.add(f"{package.replace('.', '/')}/{path.relative_to(ROOT / folder).as_posix()}")
    return found


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy, so that nothing is left in the project."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    for path in FOLDERS.values():
        shutil.copytree(ROOT / path, source / path, ignore=shutil.ignore_patterns("__pycache__"))
    # The backend itself, without isolation: no network is needed.
    build = "import sys; from setuptools import build_meta; print(build_meta.build_wheel(sys.argv[1]))"
    done = subprocess.run([sys.executable, "-c", build, str(folder)], cwd=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (built,) = folder.glob("*.whl")
    return built


def test_every_package_on_disk_is_listed_in_pyproject() -> None:
    packages = {Path(name).parent.as_posix().replace("/", ".") for name in on_disk() if name.endswith("/__init__.py")}
    assert sorted(PACKAGES) == sorted(packages)


def test_every_top_level_package_has_its_folder_and_is_typed() -> None:
    top_level = {package for package in FOLDERS if "." not in package}
    assert {package for package in PACKAGES if "." not in package} == top_level
    assert {package for package in top_level if not (ROOT / FOLDERS[package] / "py.typed").is_file()} == set()


def test_the_wheel_holds_what_is_on_disk_and_nothing_else(wheel: Path) -> None:
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert names == on_disk()


def test_the_wheel_declares_the_entry_points_and_the_licence(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (entry_points,) = (name for name in archive.namelist() if name.endswith(".dist-info/entry_points.txt"))
        text = archive.read(entry_points).decode()
        assert any(name.endswith("/licenses/LICENSE") for name in archive.namelist())
    for section in ("[console_scripts]", "[jobqueue.plugins]", "[pytest11]"):
        assert section in text
    assert "jobqueue-run = jobqueue_core.run:main" in text


def test_every_entry_point_names_a_module_that_the_wheel_holds(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    project = PROJECT["project"]
    values = [*project["scripts"].values(), *(value for group in project["entry-points"].values() for value in group.values())]
    modules = [value.partition(":")[0].replace(".", "/") for value in values]
    assert [module for module in modules if f"{module}.py" not in names and f"{module}/__init__.py" not in names] == []


def test_the_core_can_be_imported_from_the_wheel_alone(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    check = "import jobqueue_core, jobqueue_core.settings, jobqueue_core.plugins; print(jobqueue_core.__file__)"
    environ = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", check], cwd=tmp_path, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).is_relative_to(tmp_path)
