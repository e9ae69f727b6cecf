"""``jobqueue new``: write a package that is ready to be installed."""

from __future__ import annotations

import keyword
import re
import sys
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from jobqueue_cli import handler_package, plugin_package
from jobqueue_core.errors import Conflict

if TYPE_CHECKING:
    from jobqueue_cli.session import Cli

__all__ = ["new"]

_NAME: Final = re.compile(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*")
_LONGEST: Final = 60


@click.group()
def new() -> None:
    """Write a new package into a new folder of the current one: a project file, an entry point, a module and its test."""


@new.command()
@click.argument("name", callback=lambda _ctx, _parameter, value: _legal(value))
@click.pass_obj
def handlers(cli: Cli, name: str) -> None:
    """Write a package of job handlers called NAME, such as acme-jobs."""
    _write(cli, name, handler_package.files)


@new.command()
@click.argument("name", callback=lambda _ctx, _parameter, value: _legal(value))
@click.pass_obj
def plugin(cli: Cli, name: str) -> None:
    """Write a plugin called NAME, such as acme-audit: a section of the config file, a middleware and a check."""
    _write(cli, name, plugin_package.files)


def module_name(name: str) -> str:
    """The import name of the package called *name*: ``acme_jobs`` for ``acme-jobs``."""
    return name.replace("-", "_")


def _legal(name: str) -> str:
    """Return *name* when it can be the name of a distribution and, with underscores, of a module.

    Raises:
        click.BadParameter: It cannot.
    """
    if not _NAME.fullmatch(name) or len(name) > _LONGEST:
        raise click.BadParameter(
            f"{name!r:.80} is not a package name: up to {_LONGEST} lower case letters, digits and single '-' or '_', as in acme-jobs"
        )
    module = module_name(name)
    if keyword.iskeyword(module) or keyword.issoftkeyword(module) or module in sys.stdlib_module_names:
        raise click.BadParameter(f"{name!r} would hide Python's own {module!r}")
    if module == "jobqueue" or (module.startswith("jobqueue_") and find_spec(module) is not None):
        raise click.BadParameter(f"{name!r} is the name of a part of jobqueue that is installed")
    return name


def _write(cli: Cli, name: str, files: Callable[[str, str], Mapping[str, str]]) -> None:
    folder = Path(name)
    module = module_name(name)
    try:
        folder.mkdir()
        for path, text in files(name, module).items():
            file = folder / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
    except FileExistsError as error:
        raise Conflict(f"{folder.resolve()} exists; choose another name, or remove it first", code="exists") from error
    except OSError as error:
        raise Conflict(f"{folder}: cannot be written: {error.strerror or error}", code="not_written") from error
    written = sorted(str(folder / path) for path in files(name, module))
    cli.answer({"name": name, "module": module, "folder": str(folder.resolve()), "files": written}, "\n".join(written))
    cli.note(f"install it where the workers run: pip install -e {name}; run its test: pip install pytest && pytest {name}")
