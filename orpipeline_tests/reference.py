"""The reference in Markdown, generated from the settings, commands, definitions and public names themselves.

    python -m orpipeline_tests.reference             # writes docs/reference.md, data-dictionary.md and sources.yml

A test checks that they are current. Click already gives each option's text and default; the libraries that turn
commands and settings into Markdown need MkDocs or pydantic-settings.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import click
import yaml
from pydantic import SecretStr

import orpipeline
from orpipeline import Settings, build_defs, resources, testing
from orpipeline.cli.commands import cli
from orpipeline.contracts.dictionary import data_dictionary
from orpipeline.contracts.table import Table
from orpipeline.contracts.tables import RELATIONS
from orpipeline.defs.assets import SnapshotConfig
from orpipeline.defs.catalogue import CHECK as CATALOGUE_CHECK
from orpipeline.defs.catalogue import CatalogueConfig
from orpipeline.defs.checks import CHECKS, HISTORY_CHECKS
from orpipeline.defs.imports import ImportConfig
from orpipeline.defs.names import DEFAULT_PREFIX
from orpipeline.defs.reports import ReportConfig
from orpipeline.settings import API_KEY, PREFIX
from orpipeline.testing import plugin

_PROGRAM = "orpipeline"
_ASSETS = {
    "openrouter/raw_task_classifications": "The response's bytes in the archive, by day.",
    "openrouter/raw_models": "The model catalogue's bytes in the archive, by day.",
    "openrouter/leaderboard_report": "The newest day's report.",
    "openrouter/TABLE": "Each table of the [data dictionary](data-dictionary.md), and the view `model_trends`, by day.",
}
_STEPS = {
    "openrouter_snapshot": SnapshotConfig,
    "openrouter_catalogue": CatalogueConfig,
    "openrouter__leaderboard_report": ReportConfig,
    "openrouter_import": ImportConfig,
}
"""The run config of each step. Its fields are those of `ops: {STEP: {config: ...}}` in a launchpad."""

_INTRODUCTION = """# Reference

[Settings](#settings), [commands](#commands), [Dagster](#dagster), [Python](#python).

## Settings

Every setting is an environment variable. In lower case and without `ORPIPELINE_`, it is also a field of
`orpipeline.Settings` and an attribute of the component. An attribute that you leave out comes from the environment. An
empty variable counts as unset. Paths are absolute, or begin with `~`. The commands also read a file `.env` in the
current folder; the environment takes precedence.

| variable | default | meaning |
| --- | --- | --- |"""

# Variables that are not fields: the key must not be in any configuration, and DAGSTER_HOME is Dagster's own.
_KEY_ROW = (
    f"`{API_KEY}`",
    "none",
    "The API key. A secret: it is read when the API is called, and is in no log, event, table, file, page or error.",
)
_HOME_ROW = (
    "`DAGSTER_HOME`",
    "`.dagster` beside `pyproject.toml`; with another data folder, its `dagster` folder",
    "Where Dagster keeps runs and events. It is Dagster's own variable; the commands set it if you do not.",
)
_DATA_DIR = "`data` beside `pyproject.toml`; for an installed wheel, the platform's user data folder"

_COMMANDS = """
## Commands

`orpipeline COMMAND --help` has more, with examples. Exit codes: 0 done, 1 failed, 2 wrong use, 130 interrupted. Errors
are one line on standard error. With `--demo`, a command uses the demo's data folder. For completion with the Tab key,
put `eval "$(_ORPIPELINE_COMPLETE=bash_source orpipeline)"` into `~/.bashrc`; in zsh, use `zsh_source` and `~/.zshrc`.
"""

_DAGSTER = """
## Dagster

The assets are in the group `openrouter`. Partitions are UTC days, named by `as_of`. With another `key_prefix`, the
names of jobs, schedules and sensors begin with it.
"""

_PYTHON = """
## Python

From `orpipeline`. Each table and view also has a pandera model, such as `orpipeline.TaskModels`.
"""

_TESTING = """
From `orpipeline.testing`, with its pytest plugin `orpipeline.testing.plugin`:
"""


def reference() -> str:
    """Return the page: settings, commands, what Dagster shows, and the public Python names."""
    lines = [_INTRODUCTION, *(_row(*cells) for cells in (_KEY_ROW, *_settings(), _HOME_ROW)), _COMMANDS]
    group = click.Context(cli, info_name=_PROGRAM, **cli.context_settings)
    # In the order in which you first use them; `--help` sorts them by name.
    contexts = [click.Context(command, info_name=name, parent=group) for name, command in cli.commands.items()]
    lines += ["", "Options of `orpipeline` itself come before the command:", "", *_options(group)]
    for context in contexts:
        lines += ["", *_command(context)]
    return "\n".join([*lines, _DAGSTER, *_dagster(), _PYTHON, *_python(), ""])


def _settings() -> Iterator[tuple[str, str, str]]:
    defaults = Settings.model_construct(data_dir=Path(f"${PREFIX}DATA_DIR"))
    for name, field in Settings.model_fields.items():
        value = getattr(defaults, name)
        value = str(value).lower() if isinstance(value, bool) else value
        default = _DATA_DIR if name == "data_dir" else "none" if value is None else _code(value)
        secret = " A secret." if SecretStr in get_args(field.annotation) else ""
        yield _code(f"{PREFIX}{name.upper()}"), default, f"{field.description}{secret}"


def _command(context: click.Context) -> Iterator[str]:
    arguments = [one.make_metavar(context) for one in context.command.params if isinstance(one, click.Argument)]
    yield f"### `{' '.join([context.command_path, *arguments])}`\n"
    yield context.command.get_short_help_str(limit=200) + "\n"
    yield from _options(context)


def _options(context: click.Context) -> Iterator[str]:
    options = [
        parameter
        for parameter in context.command.params
        if isinstance(parameter, click.Option) and parameter.name != "demo"
    ]
    records = [record for record in (option.get_help_record(context) for option in options) if record]
    if records:
        yield from (f"- {_code(names)}: {' '.join(meaning.split())}" for names, meaning in records)


def _dagster() -> Iterator[str]:
    defs = build_defs(Settings(data_dir=Path("/data"), alert_webhook="https://alerts.example"))
    yield from (_item(key, meaning) for key, meaning in _ASSETS.items())
    yield "\nJobs, schedules and sensors:\n"
    jobs = [defs.resolve_job_def(name) for name in ("daily_snapshot", "import_archive")]
    yield from (_item(one.name, one.description) for one in (*jobs, *(defs.schedules or ()), *(defs.sensors or ())))
    yield "\nThe run config of each step:\n"
    for step, config in _STEPS.items():
        # dagster's metaclass hides pydantic's fields
        for name, field in config.model_fields.items():  # type: ignore[attr-defined]
            yield _item(f"{step}: {name}", field.description)
    yield "\nAsset checks, and the [rules](data-dictionary.md#rules) of each:\n"
    for check in (*CHECKS.values(), CATALOGUE_CHECK):
        yield _item(f"{check.name}", f"`{check.table}`. {', '.join(rule.name for rule in check.rules)}")
    for name, (table, description) in HISTORY_CHECKS.items():
        yield _item(name, f"`{table}`. {description}")
    yield f"\nResources: {', '.join(_code(key) for key in resources())}."


def _python() -> Iterator[str]:
    for name in sorted(set(dir(orpipeline)) - {"__version__"}, key=str.lower):
        value = getattr(orpipeline, name)
        if not (isinstance(value, type) and issubclass(value, Table)):
            yield _item(_signature(name, value), _sentence(value.__doc__))
    yield "\nThe parameters of `build_defs`, which the component and `external_specs` share:\n"
    _, _, arguments = inspect.cleandoc(build_defs.__doc__ or "").partition("Args:\n")
    for argument in re.split(r"\n    (?=\w+:)", "\n" + arguments.partition("\n\n")[0])[1:]:
        name, _, meaning = argument.partition(":")
        yield _item(name, meaning)
    yield _TESTING
    for name in dir(testing):
        value = getattr(testing, name)
        yield _item(_signature(name, value), _sentence(value.__doc__))
    for name in ("openrouter", "openrouter_options", "openrouter_tables"):
        yield _item(f"fixture {name}", _sentence(getattr(plugin, name).__doc__))


def _item(name: str, meaning: str | None) -> str:
    return f"- `{name}`: {' '.join((meaning or '').split())}"


def _signature(name: str, value: object) -> str:
    """Return a function's name with its parameters, without annotations; another value's name."""
    if not inspect.isfunction(value):
        return name
    parameters = inspect.signature(value).parameters.values()
    shown = [parameter.replace(annotation=inspect.Parameter.empty) for parameter in parameters]
    return f"{name}{inspect.Signature(shown)}"


def _sentence(text: str | None) -> str:
    """Return the first sentence of a description or docstring."""
    return re.split(r"(?<=\.)\s", inspect.cleandoc(text or "").partition("\n\n")[0])[0]


def sources() -> str:
    """Return a dbt source with every table and view, its columns, and its asset key in Dagster."""
    tables = [
        {
            "name": name,
            "description": model.summary(),
            "meta": {"dagster": {"asset_key": [DEFAULT_PREFIX, name]}},
            "columns": [{"name": column} for column in model.columns()],
        }
        for name, model in RELATIONS.items()
    ]
    source = {"name": DEFAULT_PREFIX, "database": "published", "schema": DEFAULT_PREFIX, "tables": tables}
    generated = "# Generated by `python -m orpipeline_tests.reference`. Copy it into the models of your dbt project.\n"
    return generated + yaml.safe_dump({"sources": [source]}, sort_keys=False, width=120)


def _code(value: Any) -> str:
    return f"`{value}`"


def _row(*cells: str) -> str:
    escaped = (cell.replace("|", "\\|") for cell in cells)
    return f"| {' | '.join(' '.join(cell.split()) for cell in escaped)} |"


PAGES = {"reference.md": reference, "data-dictionary.md": data_dictionary, "sources.yml": sources}
"""The generated files of `docs/`, and the function that returns each one's text."""

if __name__ == "__main__":
    for file, text in PAGES.items():
        Path(__file__).parents[1].joinpath("docs", file).write_text(text())
