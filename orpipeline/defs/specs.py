"""What Dagster shows about each asset, from the contracts: description, columns, kinds, labels."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cache
from typing import Any

import dagster as dg

from orpipeline import leaderboard, report
from orpipeline.archive import Archive
from orpipeline.contracts.table import DUCKDB_TYPES
from orpipeline.contracts.tables import RELATIONS, TABLES, VIEWS
from orpipeline.defs.names import VIRTUAL_ASSETS, Names
from orpipeline.settings import API_KEY
from orpipeline.warehouse.schema import CODE_VERSION

_DESCRIPTIONS = {
    "snapshots": "Start here to trace a figure: the row's sha256 is that of the response in the raw archive.",
    "task_classifications": "For example: which share of all requests is debugging code?",
    "macro_categories": "The groups are `code`, `data`, `agent` and `general`; the figures are OpenRouter's own sums.",
    "task_models": "The lists end at the top models by requests, so a tag's shares sum to less than 1.",
    "models": (
        "Names, list prices and open weights. The view `named_leaderboard` joins them to the leaderboard, and "
        "`model_prices` has each change of a price."
    ),
    "model_leaderboard": "Its columns: docs/data-dictionary.md.",  # short, as the day's top 10 follows on the page
    "model_trends": (
        "The rank and share of 1 and 7 days before, the first day, and the number of days that list the model. It "
        "includes an imported day at once."
    ),
    "author_leaderboard": (
        "For all traffic and for each macro-category. The shares are lower bounds: unlisted models can belong to any "
        "author, so ranges of possible ranks are wide."
    ),
    "leaderboard_coverage": (
        "Possible ranks are among listed models. `usage_models_above_unlisted` is how many models certainly have more "
        "requests than any unlisted one: their ranks hold against every model."
    ),
}
_VIEW = "A view is computed when you read it: its events tell which days it has."
_RAW = (
    "OpenRouter's response for the day, byte for byte, in the append-only archive. The API keeps no history: it serves "
    "only the newest completed UTC day, so a day you miss is gone."
)
_RAW_MODELS = (
    "OpenRouter's model catalogue as it was after the day's end, byte for byte, in the append-only archive. It "
    "needs no API key, and keeps no history either. A day without it stays missing, and delays nothing."
)
# The catalogue and the asset graph show how a description begins, without markup.
_NO_KEY = (
    f"No API key: {API_KEY} was not set when this code location was loaded. Without it, the schedules and "
    "`snapshot_sensor` skip. Set it in the environment or in `.env`, and restart."
)


@dataclass(frozen=True)
class Labels:
    """The labels that a project gives all of the pipeline's assets. The default group is `openrouter`."""

    group_name: str | None = None
    owners: Sequence[str] = ()
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments of each spec."""
        group_name = "openrouter" if self.group_name is None else self.group_name
        return {"group_name": group_name, "owners": self.owners, "tags": self.tags}


def daily_specs(
    names: Names, partitions: dg.DailyPartitionsDefinition, labels: Labels, *, has_key: bool
) -> list[dg.AssetSpec]:
    """Return the specs of the raw response and the tables. One step materializes all of them.

    `has_key`: whether the process that loads the definitions has an API key.
    """
    raw = f"{_RAW} Fetching needs {API_KEY} in the environment." if has_key else f"{_NO_KEY} {_RAW}"
    return [
        _raw_spec(names.raw, raw, partitions, labels),
        *(_table_spec(name, names, partitions, labels) for name in TABLES),
    ]


def catalogue_specs(names: Names, partitions: dg.DailyPartitionsDefinition, labels: Labels) -> list[dg.AssetSpec]:
    """Return the specs of the raw model catalogue and of its table. One step materializes both."""
    raw = _raw_spec(names.asset("raw_models"), _RAW_MODELS, partitions, labels)
    return [raw, _table_spec("models", names, partitions, labels)]


def view_specs(names: Names, partitions: dg.DailyPartitionsDefinition, labels: Labels) -> list[dg.AssetSpec]:
    """Return the specs of the views. A view is computed when you read it, so no step materializes it."""
    with warnings.catch_warnings():
        # Virtual assets are a preview in Dagster 1.13. A user of the UI cannot act on the warning.
        warnings.simplefilter("ignore", dg.PreviewWarning)
        return [_table_spec(name, names, partitions, labels) for name in VIRTUAL_ASSETS]


def report_spec(names: Names, labels: Labels) -> dg.AssetSpec:
    """Return the spec of the report, which is not partitioned."""
    return dg.AssetSpec(
        names.report,
        deps=list(map(names.asset, (*TABLES, *VIRTUAL_ASSETS))),
        description=(
            "The newest day's market shares as a self-contained page, with pictures for posts. Open the file in a "
            "browser; it needs no network. It shows who leads, what has certainly changed, the ranking with its "
            "bounds, the history, and where the figures come from. Each day keeps a page at an address that lasts. "
            "The run config's `day` selects another day."
        ),
        kinds={"report", "python"},
        **labels.arguments,
        code_version=CODE_VERSION,
        metadata=_code_reference(report, "how it is built"),
    )


def _raw_spec(
    key: dg.AssetKey, description: str, partitions: dg.DailyPartitionsDefinition, labels: Labels
) -> dg.AssetSpec:
    return dg.AssetSpec(
        key,
        description=description,
        kinds={"python", "json"},
        **labels.arguments,
        code_version=CODE_VERSION,
        partitions_def=partitions,
        metadata=_code_reference(Archive, "the archive"),
        skippable=True,
    )


@cache  # a code location can have many pipelines, and Dagster takes 10 ms to check the cron expression
def _due_in_the_morning() -> dg.FreshnessPolicy:
    # The API serves the day from 00:00 UTC on; at 06:00 there is still time to fix a problem.
    return dg.FreshnessPolicy.cron("0 6 * * *", lower_bound_delta=timedelta(hours=6), timezone="UTC")


def _table_spec(
    name: str,
    names: Names,
    partitions: dg.DailyPartitionsDefinition,
    labels: Labels,
) -> dg.AssetSpec:
    model, deps, is_view = RELATIONS[name], names.inputs(names.asset(name)), name in VIEWS
    source: Any = model if is_view or deps == [names.raw] else leaderboard.leaderboards
    spec = dg.AssetSpec(
        names.asset(name),
        deps=deps,
        description=f"{model.summary()} {_DESCRIPTIONS[name]}{f' {_VIEW}' if is_view else ''}",
        kinds={"duckdb", "view"} if is_view else {"duckdb", "polars", "pandera"},
        **labels.arguments,
        code_version=CODE_VERSION,
        partitions_def=partitions,
        metadata={
            "dagster/table_name": f"{names.prefix}.{name}",
            **({} if name == "model_leaderboard" else {"dagster/column_schema": _column_schema(name)}),
            # The I/O manager needs it to load a partition for a downstream asset.
            "partition_expr": "as_of",
            **_code_reference(source, "its contract" if source is model else "how it is computed"),
        },
        freshness_policy=_due_in_the_morning() if name == "model_leaderboard" else None,
        skippable=not is_view,
        is_virtual=is_view,
    )
    return spec.with_io_manager_key(names.io_manager)


def _column_schema(name: str) -> dg.TableSchema:
    """Return the columns with types, descriptions and constraints, from the pandera model."""
    model = RELATIONS[name]
    key = set(model.primary_key())
    return dg.TableSchema(
        [
            dg.TableColumn(
                column,
                type=DUCKDB_TYPES[details.dtype.type].lower(),
                description=details.description,
                constraints=dg.TableColumnConstraints(nullable=details.nullable),
                tags={"primary_key": ""} if column in key else None,
            )
            for column, details in model.columns().items()
        ]
    )


def _code_reference(source: Any, label: str) -> dict[str, Any]:
    path = inspect.getsourcefile(source)
    if path is None:
        return {}
    line = _first_line(source)
    with warnings.catch_warnings():
        # Code references are a beta of Dagster's. A user of the UI cannot act on the warning.
        warnings.simplefilter("ignore", dg.BetaWarning)
        reference = dg.LocalFileCodeReference(file_path=path, line_number=line, label=label)
        return {"dagster/code_references": dg.CodeReferencesMetadataValue(code_references=[reference])}


@cache  # it parses the module, which takes longer than the rest of the definitions
def _first_line(source: Any) -> int:
    return inspect.getsourcelines(source)[1]
