"""Decide which broker and storage are used, and by which url.

What stands in the config file, ``REDIS_URL`` and its like, and defaults come together here; what comes out are the names of installed plugins
and urls that they take, SQLite paths made absolute.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Final, Literal

import attrs

from jobqueue_core.broker import BrokerPlugin
from jobqueue_core.settings.draft import COMMAND_LINE, Draft
from jobqueue_core.storage import StoragePlugin
from jobqueue_core.urls import absolute_sqlite_url, scheme_of

if TYPE_CHECKING:
    from jobqueue_core.plugins import Plugins

__all__ = ["choose_connections"]

_DEFAULT: Final = "sqlite"

Part = BrokerPlugin | StoragePlugin
Kind = Literal["broker", "storage"]


@attrs.frozen
class _Home:
    part: Part
    url: str | None
    """None when it cannot be used, which has been said."""


def choose_connections(draft: Draft, plugins: Plugins, environ: Mapping[str, str]) -> None:
    """Fill in ``plugin`` and ``url`` of ``[broker]`` and ``[storage]``, or say what is wrong with them."""
    offers: Mapping[Kind, Mapping[str, Part]] = {"broker": plugins.brokers(), "storage": plugins.storages()}
    home: _Home | None = None
    for kind, parts in offers.items():
        if not isinstance(draft.tables.get(kind, {}), dict):
            continue
        _read_variables(draft, kind, parts, environ)
        part = _choose(draft, kind, parts, plugins)
        if part is None:
            continue
        # Broker and storage of one plugin share one place, unless told otherwise.
        shared = home is not None and home.part.name == part.name and "url" not in draft.table(kind)
        if home is None or not shared:
            home = _Home(part, _settle_url(draft, kind, part, others=parts.values()))
        elif home.url is not None:
            draft.set(kind, "url", home.url)
        if kind == "storage" and "migrate_url" in draft.table(kind):
            _settle_url(draft, kind, part, others=parts.values(), key="migrate_url")


def _read_variables(draft: Draft, kind: Kind, parts: Mapping[str, Part], environ: Mapping[str, str]) -> None:
    """A variable such as REDIS_URL gives the url of its plugin, and chooses that plugin where nothing else does."""
    claims = {part.name: part.url_variable for part in parts.values() if part.url_variable and environ.get(part.url_variable, "").strip()}
    if not claims:
        return
    if "plugin" not in draft.table(kind):
        if len(claims) > 1:
            pairs = " and ".join(f"{variable} ({name})" for name, variable in claims.items())
            draft.problems.append(f"environment: {pairs} are both set: say which {kind} to use by [{kind}] plugin")
            return
        ((name, variable),) = claims.items()
        draft.set(kind, "plugin", name, source=_variable(variable))
    wanted = draft.table(kind)["plugin"]
    for name, variable in claims.items():
        if name != wanted:
            draft.warnings.append(f"{_variable(variable)} is ignored: {draft.source(kind, 'plugin')} chooses {kind}.plugin = {wanted!r}")
        elif draft.source(kind, "url") != COMMAND_LINE:
            draft.set(kind, "url", environ[variable].strip(), source=_variable(variable))


def _variable(name: str) -> str:
    return f"environment variable {name}"


def _choose(draft: Draft, kind: Kind, parts: Mapping[str, Part], plugins: Plugins) -> Part | None:
    name = draft.table(kind).get("plugin", _DEFAULT)
    if not isinstance(name, str):
        return None  # the section says so
    draft.set(kind, "plugin", name)
    error = plugins.unusable(kind, name)
    if error is not None:
        draft.refuse(kind, "plugin", error)
        return None
    return parts[name]


def _settle_url(draft: Draft, kind: Kind, part: Part, *, others: Iterable[Part], key: str = "url") -> str | None:
    """Complete the url of *part* in *key*; None when it cannot be used, and then the draft says why."""
    url = draft.table(kind).get(key, part.default_url)
    if url is None:
        variable = f", or set {part.url_variable}" if part.url_variable else ""
        draft.refuse(kind, key, f"is required for the {kind} {part.name!r}: give it in the config file{variable}")
    if not isinstance(url, str):
        return None  # if it was given, the section says so
    scheme = scheme_of(url)
    alias = part.url_aliases.get(scheme or "")
    if scheme and alias:
        url, scheme = alias + url.removeprefix(scheme), alias
    draft.set(kind, key, url)
    if scheme not in part.schemes:
        schemes = ", ".join(f"{one}://" for one in (*part.schemes, *part.url_aliases))
        fitting = next((f'; {kind}.plugin = "{one.name}" takes this one' for one in others if _takes(one, scheme)), "")
        draft.refuse(kind, key, f"must be a url that the {kind} {part.name!r} takes: {schemes}{fitting}")
        return None
    if scheme == _DEFAULT:
        try:
            url = absolute_sqlite_url(url, draft.file.folder)
        except ValueError as error:
            draft.refuse(kind, key, str(error))
            return None
        draft.set(kind, key, url)
    problems = part.url_problems(url)
    for problem in problems:
        draft.refuse(kind, key, problem)
    return None if problems else url


def _takes(part: Part, scheme: str | None) -> bool:
    return scheme in part.schemes or scheme in part.url_aliases
