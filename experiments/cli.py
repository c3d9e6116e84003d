"""The command `supernest`: its group, how errors are explained, and exit codes. Commands are in `experiments.commands`.

Everything heavy is imported by the command that needs it, so that help is immediate.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from experiments.commands import commands

_USAGE, _INTERRUPTED = 2, 130


class _Commands(click.Group):
    """A group that suggests the nearest command for an unknown one."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if self.get_command(ctx, name) is None and not name.startswith("-"):
            from search_spaces.errors import did_you_mean

            raise click.UsageError(f"{name!r} is no command.{did_you_mean(name, self.list_commands(ctx))}")
        return super().resolve_command(ctx, args)


def _version(context: click.Context, parameter: click.Parameter, wanted: bool) -> None:
    if wanted:
        import importlib.metadata

        click.echo(f"supernest {importlib.metadata.version('supernest')}")
        context.exit()


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Show the version.")
def supernest() -> None:
    """Train one supernet, find the best subnets for your budgets, and export each as a standalone network."""
    from experiments.process.freed_memory import keep_freed_memory

    keep_freed_memory()


for command in commands():
    supernest.add_command(command)


def program() -> int:
    """Runs the command of this process; see `main`."""
    from experiments.process.garbage import collect_rarely
    from experiments.process.interrupt import this_process_is_a_command

    this_process_is_a_command()
    collect_rarely()
    return main()


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and returns the exit code: 0, 2 for what the user can mend, 130 for Ctrl-C.

    Args:
        arguments: Arguments of the command line; `sys.argv` when None.
    """
    try:
        result = supernest.main(
            args=None if arguments is None else list(arguments), prog_name="supernest", standalone_mode=False
        )
        sys.stdout.flush()
        return result if isinstance(result, int) else 0
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return _USAGE
    except click.ClickException as error:
        text = " ".join(error.format_message().split())
        context = getattr(error, "ctx", None)
        return _fail(f"{text} See: {context.command_path} --help" if context else text)
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted. The same command resumes it.", err=True)
        return _INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has gone; nothing more can be said to them, at exit neither.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        return _explain(error)


def _explain(error: Exception) -> int:
    from experiments.process.interrupt import Interrupted
    from search_spaces.errors import UserError
    from supernet.storage.manifest import storage_error

    if isinstance(error, Interrupted):
        click.echo(str(error), err=True)
        return _INTERRUPTED
    if isinstance(error, UserError):
        return _fail(str(error))
    if isinstance(error, OSError):
        mended = storage_error(error, Path(error.filename or "disk"))
        if mended is not None:
            return _fail(str(mended))
    raise error


def _fail(text: str) -> int:
    for line in text.splitlines():
        click.echo(f"error: {line}", err=True)
    return _USAGE
