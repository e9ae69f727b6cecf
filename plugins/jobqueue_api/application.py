"""The WSGI application."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import falcon

from jobqueue_core.keys import KeyRing

from .backend import Backend
from .description.openapi import document
from .http.accesslog import AccessLog
from .http.gate import Gate
from .http.held import Held
from .http.paths import CONVERTERS
from .http.problems import answer_errors
from .resources.documents import Described
from .routes import Route, routes
from .streaming.eventhub import EventHub

if TYPE_CHECKING:
    from jobqueue_core.app import App

    from .section import ApiSection
    from .server.closing import Closing

__all__ = ["create_app"]

_EXPOSED: Final = ("Link", "Location", "Retry-After", "X-Request-ID")


def create_app(app: App, *, closing: Closing) -> falcon.App[falcon.Request, falcon.Response]:
    """The application that serves *app*, made in the process that serves it.

    Broker and storage are opened when the first request needs them.

    Args:
        app: Settings and plugins.
        closing: Begins when the process is told to stop.

    Raises:
        ConfigError: A key file cannot be read.
    """
    section: ApiSection = app.settings.section("api")
    backend = Backend(app)
    prefix = section.path_prefix
    described = Described(lambda: document(table, server=prefix or "/"))
    table = routes(app, held=Held(section.threads // 2), closing=closing, hub=EventHub(backend, closing), described=described)
    gate = Gate(
        section, KeyRing(section.keys, app.settings.folder), open_paths=_open_paths(table, prefix), backend=backend, access_log=AccessLog(closing)
    )
    served = falcon.App(middleware=[*_cors(section), gate])
    served.req_options.strip_url_path_trailing_slash = True
    served.router_options.converters.update(CONVERTERS)
    answer_errors(served)
    for route in table:
        route.answer_head()
        served.add_route(f"{prefix}{route.path}", route.resource)
    return served


def _open_paths(table: Sequence[Route], prefix: str) -> frozenset[str]:
    """What needs no key."""
    return frozenset(f"{prefix}{route.path}" for route in table if all(one.role is None for _method, one in route.operations()))


def _cors(section: ApiSection) -> list[Any]:
    """What lets pages of other sites use the API; nothing unless configured."""
    if not section.cors_origins:
        return []
    origins = "*" if "*" in section.cors_origins else list(section.cors_origins)
    return [falcon.CORSMiddleware(allow_origins=origins, expose_headers=_EXPOSED)]
