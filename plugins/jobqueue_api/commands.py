"""``jobqueue openapi`` and ``jobqueue api-key``."""

from __future__ import annotations

import hashlib
import secrets
from typing import TYPE_CHECKING, Any, Final

import attrs
import click

from jobqueue_core import PluginError
from jobqueue_core.keys import ApiKey, Role
from jobqueue_core.options import OptionError

if TYPE_CHECKING:
    from jobqueue_core.app import App

    from .resources.documents import Described
    from .section import ApiSection

__all__ = ["api_key", "openapi"]

_MARK: Final = "jobqueue_"
"""What our keys begin with, so that whoever looks for secrets that lie about knows one."""
_ENTROPY: Final = 32


@click.command()
@click.pass_obj
def openapi(cli: Any) -> None:
    """Write the OpenAPI document of the REST API to stdout: as YAML, or with --json as JSON.

    It is the one that a server with the same configuration serves under /api/v1/openapi.yaml.
    """
    document = _described(cli.app)
    click.echo(document.json if cli.as_json else document.yaml, nl=cli.as_json)


@click.command("api-key")
@click.argument("name", callback=lambda _ctx, _parameter, value: _legal(value))
@click.option(
    "--role", type=click.Choice([role.value for role in Role]), required=True, help="What its holder may do: look; also create and cancel; all."
)
@click.pass_obj
def api_key(cli: Any, name: str, *, role: str) -> None:
    """Make a key for the REST API, for a holder called NAME.

    The key is shown once, on stderr, and kept nowhere. The table for the config file is written to stdout; it holds the key's SHA-256 digest,
    from which nobody finds the key: jobqueue api-key ci --role write >> jobqueue.toml
    """
    secret = f"{_MARK}{secrets.token_urlsafe(_ENTROPY)}"
    digest = hashlib.sha256(secret.encode()).hexdigest()
    if not cli.as_json:
        cli.note(f"the key, shown this once: {secret}")
    table = f'[[api.keys]]\nname = "{name}"\nrole = "{role}"\nsha256 = "{digest}"'
    cli.answer({"name": name, "role": role, "key": secret, "sha256": digest}, f"\n{table}")


def _described(app: App) -> Described:
    """What a server of *app* would say of itself; nothing is opened for it.

    Raises:
        PluginError: The extra is not installed.
    """
    try:
        from .backend import Backend
        from .description.openapi import document
        from .http.held import Held
        from .resources.documents import Described
        from .routes import routes
        from .server.closing import Closing
        from .streaming.eventhub import EventHub
    except ImportError as error:
        raise PluginError(f"needs the extra 'api': pip install 'jobqueue[api]' ({error})", plugin="api") from error
    section: ApiSection = app.settings.section("api")
    closing = Closing()
    described = Described(lambda: document(table, server=section.path_prefix or "/"))
    table = routes(app, held=Held(1), closing=closing, hub=EventHub(Backend(app), closing), described=described)
    return described


def _legal(name: str) -> str:
    """Return *name* when the config file takes it.

    Raises:
        click.BadParameter: It does not.
    """
    try:
        attrs.validate(ApiKey(name=name, role="read", sha256="0" * 64))
    except OptionError as error:
        raise click.BadParameter(f"{name!r:.80} {error.problem}") from error
    return name
