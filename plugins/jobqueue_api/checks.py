"""What ``jobqueue doctor`` looks at of the API."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from jobqueue_core.checks import Check, Finding
from jobqueue_core.errors import ConfigError
from jobqueue_core.keys import KeyRing

from .section import ApiSection, is_loopback

if TYPE_CHECKING:
    from jobqueue_core.app import App

__all__ = ["checks"]


def checks() -> list[Check]:
    """All checks of this plugin."""
    return [Check(name="api", run=_check)]


def _check(app: App, _fix: bool) -> list[Finding]:  # noqa: FBT001 - the signature of Check.run
    section: ApiSection = app.settings.section("api")
    found = [*_anonymous(section), *_keys(app, section), *_files(app, section)]
    if not found and section.keys:
        found.append(Finding(level="ok", text=f"api: {len(section.keys)} keys"))
    return found


def _anonymous(section: ApiSection) -> Iterator[Finding]:
    if section.allow_anonymous and not section.keys and not is_loopback(section.host):
        yield Finding(
            level="warning",
            text=f"api: whoever reaches {section.host}:{section.port} may do everything: there are no keys, and allow_anonymous is set",
            remedy="add [[api.keys]]",
        )


def _keys(app: App, section: ApiSection) -> Iterator[Finding]:
    try:
        KeyRing(section.keys, app.settings.folder)
    except ConfigError as error:
        for problem in error.problems:
            # Where the API does not run, its key files need not be.
            yield Finding(level="warning", text=f"api: {problem}", remedy="mend it where the API runs: it does not start without")


def _files(app: App, section: ApiSection) -> Iterator[Finding]:
    """Files that hold keys, and that others may read."""
    paths = [app.settings.folder / one.key_file for one in section.keys if one.key_file is not None]
    if app.settings.source is not None and any(one.key is not None for one in section.keys):
        paths.append(app.settings.source)
    for path in paths:
        if _others_may_read(path):
            yield Finding(level="warning", text=f"api: {path} holds keys, and every user of this machine may read it", remedy=f"chmod o-r {path}")


def _others_may_read(path: Path) -> bool:
    try:
        return bool(path.stat().st_mode & stat.S_IROTH)
    except OSError:
        return False
