"""The reference of settings and commands in Markdown, generated from `Settings` and from the commands themselves.

    python -m orpipeline_tests.reference > docs/reference.md

A test checks that the page is current. Click already gives each option's text and default; the libraries that turn
commands and settings into Markdown need MkDocs or pydantic-settings.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent, indent
from typing import Any, get_args

import click
from pydantic import SecretStr

from orpipeline.cli.commands import cli
from orpipeline.settings import API_KEY, PREFIX, Settings

_PROGRAM = "orpipeline"

_INTRODUCTION = """# Reference: settings and commands

<!-- Generated: python -m orpipeline_tests.reference > docs/reference.md -->

## Settings

Every setting is an environment variable, a field of `orpipeline.Settings`, and an attribute of the component
`orpipeline.OpenRouterMarketShare`. An attribute that you leave out comes from the environment. An empty variable counts
as unset. Paths are absolute, or begin with `~`; in the component, relative paths start at the project's folder. The
commands also read a file `.env` in the current folder, and variables in the environment take precedence. An invalid
value is an error that names the setting, and never shows the value.

| variable | field | default | meaning |
| --- | --- | --- | --- |"""

# Variables that are not fields: the key must not be in any configuration, and DAGSTER_HOME is Dagster's own.
_KEY_ROW = (
    f"`{API_KEY}`",
    "",
    "none",
    "The API key. A secret: it is read when the API is called, and is in no log, event, table, file, page or error.",
)
_HOME_ROW = (
    "`DAGSTER_HOME`",
    "",
    "`.dagster` beside `pyproject.toml`; with another data folder, its `dagster` folder",
    "Where Dagster keeps runs and events. It is Dagster's own variable; the commands set it if you do not.",
)
_DATA_DIR = "`data` beside `pyproject.toml`; for an installed wheel, the platform's user data folder"

_COMMANDS = """
## Commands

`orpipeline COMMAND --help` (or `-h`) shows the same text in the terminal. Exit codes: 0 done, 1 failed, 2 wrong use,
130 interrupted. Errors are one line on standard error.
"""

_COMPLETION = """
## Shell completion

The Tab key completes commands, options, their values, files and folders after this line in your shell's start-up file:

| shell | file | line |
| --- | --- | --- |
| bash 4.4 or newer | `~/.bashrc` | `eval "$(_ORPIPELINE_COMPLETE=bash_source orpipeline)"` |
| zsh | `~/.zshrc`, after `compinit` | `eval "$(_ORPIPELINE_COMPLETE=zsh_source orpipeline)"` |
| fish | `~/.config/fish/completions/orpipeline.fish` | `_ORPIPELINE_COMPLETE=fish_source orpipeline \\| source` |

`orpipeline` must be on your `PATH` when the shell starts. If it is in a virtual environment, run the line after you
activate that. The line runs `orpipeline`, which takes 0.2 seconds. To avoid that, write the script to a file once, and
load the file instead:

    _ORPIPELINE_COMPLETE=bash_source orpipeline > ~/.orpipeline-complete.bash
    echo 'source ~/.orpipeline-complete.bash' >> ~/.bashrc
"""


def reference() -> str:
    """Return the page: every setting with its variable, default and meaning, then every command with its options."""
    lines = [_INTRODUCTION, *(_row(*cells) for cells in (_KEY_ROW, *_settings(), _HOME_ROW)), _COMMANDS]
    group = click.Context(cli, info_name=_PROGRAM, **cli.context_settings)
    # In the order in which you first use them; `--help` sorts them by name.
    contexts = [click.Context(command, info_name=name, parent=group) for name, command in cli.commands.items()]
    lines += ["| command | what it does |", "| --- | --- |"]
    for context in contexts:
        anchor = context.command_path.replace(" ", "-")
        lines.append(_row(f"[`{context.command_path}`](#{anchor})", context.command.get_short_help_str(limit=200)))
    lines += ["", "Options of `orpipeline` itself come before the command:", "", *_options(group)]
    for context in contexts:
        lines += ["", *_command(context)]
    return "\n".join([*lines, _COMPLETION])


def _settings() -> Iterator[tuple[str, str, str, str]]:
    defaults = Settings.model_construct(data_dir=Path(f"${PREFIX}DATA_DIR"))
    for name, field in Settings.model_fields.items():
        value = getattr(defaults, name)
        value = str(value).lower() if isinstance(value, bool) else value
        default = _DATA_DIR if name == "data_dir" else "none" if value is None else _code(value)
        secret = " A secret." if SecretStr in get_args(field.annotation) else ""
        yield _code(f"{PREFIX}{name.upper()}"), _code(name), default, f"{field.description}{secret}"


def _command(context: click.Context) -> Iterator[str]:
    command = context.command
    yield f"### `{context.command_path}`\n"
    yield f"    {context.command_path} {' '.join(command.collect_usage_pieces(context))}\n"
    yield from _paragraphs(command.help)
    yield from _paragraphs(command.epilog)
    yield from _options(context)


def _paragraphs(text: str | None) -> Iterator[str]:
    """Return paragraphs as Markdown. Click does not wrap a paragraph after `\\b`, so that one becomes code."""
    for paragraph in inspect.cleandoc(text).split("\n\n") if text else []:
        first, _, rest = paragraph.partition("\n")
        yield (indent(dedent(rest), "    ") if first == "\b" else paragraph) + "\n"


def _options(context: click.Context) -> Iterator[str]:
    options = [parameter for parameter in context.command.params if isinstance(parameter, click.Option)]
    records = [record for record in (option.get_help_record(context) for option in options) if record]
    if records:
        yield "| option | meaning |\n| --- | --- |"
        yield from (_row(_code(names), meaning) for names, meaning in records)


def _code(value: Any) -> str:
    return f"`{value}`"


def _row(*cells: str) -> str:
    escaped = (cell.replace("|", "\\|") for cell in cells)
    return f"| {' | '.join(' '.join(cell.split()) for cell in escaped)} |"


if __name__ == "__main__":
    print(reference(), end="")
