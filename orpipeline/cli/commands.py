"""The group of all commands, its `.env` file, and its errors, each in one line."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

import click
from dotenv import load_dotenv

from orpipeline.cli.daily import fetch, leaderboard, report, run
from orpipeline.cli.history import export, import_, rebuild
from orpipeline.cli.start import demo, dev, doctor
from orpipeline.cli.terminal import examples, survive_any_encoding
from orpipeline.errors import OrpipelineError, SettingsError
from orpipeline.text import one_line

_SECTIONS = {
    "Start": (demo, dev, doctor),
    "Daily": (run, fetch, report, leaderboard),
    "History": (import_, rebuild, export),
}


class _Commands(click.Group):
    """The commands, in sections."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - of click
        width = max(map(len, self.commands))
        for title, commands in _SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(f"{one.name:<{width}}", one.get_short_help_str(200)) for one in commands])


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=examples(
        "orpipeline demo                  # all of it on made-up data, without a key",
        "orpipeline leaderboard --demo    # the demo's leaderboard",
    ),
)
@click.option("--debug", is_flag=True, expose_value=False, help="Show a traceback with an error.")  # main reads it
@click.version_option(package_name="orpipeline", message="%(prog)s %(version)s")
@click.pass_context
def cli(context: click.Context) -> None:
    """Archive, validate and rank OpenRouter's daily task shares.

    The API serves only the newest day, so a day that you miss is gone. Every command reads the file `.env` in the
    current folder. Variables that are already set take precedence.
    """
    context.obj = _load_env_file()


for _command in (one for section in _SECTIONS.values() for one in section):
    cli.add_command(_command)


def _load_env_file() -> Path | None:
    """Load the current folder's `.env` into the environment, and return its path, or None without one."""
    path = Path.cwd() / ".env"
    if not path.is_file():
        return None
    try:
        load_dotenv(path, override=False)
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"Cannot read {path}: {error}. Fix the file, or move it away.") from error
    return path


def execute(arguments: Sequence[str]) -> int:
    """Run a command and return its exit code: 0 done, 1 failed, 2 wrong use. Errors are one line on stderr.

    Raises KeyboardInterrupt.
    """
    debug = "--debug" in arguments
    survive_any_encoding()
    try:
        code = cli.main(arguments, prog_name="orpipeline", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        print(error.format_message(), file=sys.stderr)
        return 2
    except click.UsageError as error:
        path = error.ctx.command_path if error.ctx else "orpipeline"
        _print_error(f"{error.format_message()} See `{path} --help`.", debug)
        return 2
    except OrpipelineError as error:
        _print_error(str(error), debug)
        return 1
    except click.Abort:
        raise KeyboardInterrupt from None
    except Exception as error:
        _print_error(f"unexpected {type(error).__name__}: {error}. Use `--debug` for a traceback.", debug)
        return 1
    return code or 0


def _print_error(message: str, debug: bool) -> None:
    if debug:
        traceback.print_exc()
    print(f"orpipeline: {one_line(message)}", file=sys.stderr)
