"""The plugin ``api``: the REST API, served by the role of the same name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

from jobqueue_core import PluginError, hookimpl
from jobqueue_core.service import CommandPlugin, ServicePlugin

from .section import ApiSection

if TYPE_CHECKING:
    from jobqueue_core.app import App
    from jobqueue_core.checks import Check
    from jobqueue_core.service import Service
    from jobqueue_core.settings import Settings

_NAME: Final = "api"


@hookimpl
def jobqueue_settings() -> Mapping[str, Any]:
    """The table ``[api]``, and the keys in it."""
    return {_NAME: ApiSection}


@hookimpl
def jobqueue_services() -> Iterable[ServicePlugin]:
    """The API's server. Nobody has to name it where its extra is installed."""
    installed = all(find_spec(one) is not None for one in ("falcon", "gunicorn"))
    return [ServicePlugin(name=_NAME, summary="serves the REST API", open=_open, by_default=installed, reloads=True)]


@hookimpl
def jobqueue_commands() -> Iterable[CommandPlugin]:
    """What the operator's command has for the API."""
    return [
        CommandPlugin(name="openapi", help="Write the OpenAPI document of the REST API.", target="jobqueue_api.commands:openapi"),
        CommandPlugin(name="api-key", help="Make a key for the REST API.", target="jobqueue_api.commands:api_key"),
    ]


@hookimpl
def jobqueue_checks(settings: Settings) -> Iterable[Check]:  # noqa: ARG001 - as the hook has it
    """What ``doctor`` looks at."""
    from .checks import checks

    return checks()


def _open(app: App) -> Service:
    try:
        from .server.service import ApiService
    except ImportError as error:
        raise PluginError(f"needs the extra 'api': pip install 'jobqueue[api]' ({error})", plugin=_NAME) from error
    return ApiService(app)
