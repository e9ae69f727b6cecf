"""The command ``jobqueue`` itself: it knows its commands by name and imports one when it is called."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

import click

from jobqueue_cli.failures import failure_of
from jobqueue_cli.session import Cli, warnings_on_stderr
from jobqueue_core import __version__
from jobqueue_core.errors import PluginError
from jobqueue_core.plugins import Plugins

if TYPE_CHECKING:
    from jobqueue_core.service import CommandPlugin

__all__ = ["Root", "installed_root"]

_HELP = """Operate background jobs: enqueue, look, retry, repair.

Without a config file the embedded default is used: jobqueue.db in the current folder."""


def installed_root() -> Root:
    """The command with what all installed plugins offer."""
    plugins = Plugins.load()
    return Root(plugins.commands(), faults=lambda: plugins.faults)


class Root(click.Group):
    """The group of all commands.

    Args:
        offered: The commands by name.
        faults: What is wrong with plugins, asked when a command is unknown.
        cli: What the commands are given; None makes one that reads the configuration.
    """

    def __init__(self, offered: Mapping[str, CommandPlugin], *, faults: Callable[[], Sequence[object]] = tuple, cli: Cli | None = None) -> None:
        super().__init__(
            name="jobqueue",
            help=_HELP,
            params=[
                *shared_options(),
                click.Option(["--version"], is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Show the version."),
            ],
            context_settings={"help_option_names": ["-h", "--help"]},
        )
        self._offered = offered
        self._faults = faults
        self._cli = cli

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """All names, alphabetically."""
        return sorted(self._offered)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        """Import one command.

        Raises:
            PluginError: It cannot be imported, or is no command.
        """
        plugin = self._offered.get(cmd_name)
        if plugin is None:
            return None
        command = _imported(plugin)
        share_options(command)
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, or say which broken plugin it may belong to."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            if self._faults():
                hint = "Some plugins are broken, and one may have offered it: see 'jobqueue plugins'."
                raise click.UsageError(f"{error.message} {hint}", error.ctx) from error
            raise

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's signature
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, self._offered[name].help) for name in sorted(self._offered)])

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command, and have its output out while click still knows what to do when nobody reads it."""
        result = super().invoke(ctx)
        sys.stdout.flush()
        return result

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,  # noqa: FBT001, FBT002, ARG002 - click's signature; this one always stands alone
        **extra: Any,
    ) -> Any:
        """Run the command and exit with its status; whatever goes wrong on purpose is one line on stderr."""
        arguments = list(sys.argv[1:] if args is None else args)
        cli = self._cli or Cli()
        with warnings_on_stderr():
            try:
                status = super().main(arguments, prog_name, complete_var, standalone_mode=False, obj=cli, **extra)
            except click.exceptions.NoArgsIsHelpError as error:
                error.show()
                status = 2
            except Exception as error:
                failure = failure_of(error)
                if failure is None:
                    raise
                failure.show(as_json=cli.as_json or "--json" in arguments)
                status = failure.status
            finally:
                cli.close()
        # What a command returns is no status; click returns that of an Exit.
        sys.exit(status if isinstance(status, int) and not isinstance(status, bool) else 0)


def _imported(plugin: CommandPlugin) -> click.Command:
    module, _, attribute = plugin.target.partition(":")
    try:
        command = getattr(import_module(module), attribute)
    except ModuleNotFoundError as error:
        if error.name == "rich":
            raise
        raise PluginError(f"the command cannot be imported from {plugin.target}: {error}", plugin=plugin.name) from error
    except Exception as error:  # a third party's code
        raise PluginError(f"the command cannot be imported from {plugin.target}: {type(error).__name__}: {error}", plugin=plugin.name) from error
    if not isinstance(command, click.Command):
        raise PluginError(f"{plugin.target} is no click command but {command!r:.100}", plugin=plugin.name)
    return command


# The options of every command ----------------------------------------------------------------------------------------------------------


def shared_options() -> list[click.Option]:
    """``-c`` and ``--json``; they tell the ``Cli`` object and pass nothing to the command."""
    return [
        click.Option(
            ["-c", "--config", "jobqueue_config"],
            metavar="FILE",
            expose_value=False,
            is_eager=True,
            callback=_set_config,
            help="The config file; else JOBQUEUE_CONFIG, else the embedded default.",
        ),
        click.Option(
            ["--json", "jobqueue_json"],
            is_flag=True,
            expose_value=False,
            is_eager=True,
            callback=_set_json,
            help="Print JSON, and nothing else, on stdout.",
        ),
    ]


def share_options(command: click.Command) -> None:
    """Give a command, and all commands below it, the shared options, so that these may stand before or after its words."""
    taken = {text for parameter in command.params for text in parameter.opts}
    command.params += [option for option in shared_options() if not taken.intersection(option.opts)]
    if isinstance(command, click.Group):
        for child in command.commands.values():
            share_options(child)


def _set_config(ctx: click.Context, _parameter: click.Parameter, value: str | None) -> None:
    if value is not None:
        _cli_of(ctx).use_config(value)


def _set_json(ctx: click.Context, _parameter: click.Parameter, value: bool) -> None:  # noqa: FBT001 - click's signature
    if value:
        _cli_of(ctx).as_json = True


def _cli_of(ctx: click.Context) -> Cli:
    return ctx.ensure_object(Cli)


def _version(ctx: click.Context, _parameter: click.Parameter, value: bool) -> None:  # noqa: FBT001 - click's signature
    if value and not ctx.resilient_parsing:
        click.echo(f"jobqueue {__version__}")
        ctx.exit()
