"""What the UI shows of each asset and check, from the contracts: descriptions, columns, kinds, owners, rules."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import dagster as dg

from orpipeline import leaderboard, report
from orpipeline.archive import folder
from orpipeline.contracts.rules import CHECKS, Check
from orpipeline.contracts.tables import RELATIONS, TABLES, VIEWS
from orpipeline.defs.partitions import daily_partitions
from orpipeline.warehouse.database import DUCKDB_TYPES, SCHEMA

PREFIX = "openrouter"
RAW = dg.AssetKey([PREFIX, "raw_task_classifications"])
REPORT = dg.AssetKey([PREFIX, "leaderboard_report"])
LOST_DAYS = dg.AssetCheckKey(RAW, "no_lost_days")
RESTATEMENT = dg.AssetCheckKey(dg.AssetKey([PREFIX, "task_classifications"]), "restatement")
HISTORY_CHECKS = {
    LOST_DAYS: "No day since the first is missing from both archive and tables. A lost day can only be imported.",
    RESTATEMENT: "Says how far a restated day moved from its revision before: the largest change, and of which tag.",
}
"""Checks that look beyond the run's own answers, with their descriptions."""
OWNERS = ["team:market-share"]
CODE_VERSION = "1"
"""Raised when the same bytes give other rows: Dagster then shows the tables as out of date."""
DATA_VERSION_TAG = "dagster/data_version"


def table_key(table: str) -> dg.AssetKey:
    """Return the asset key of a table."""
    return dg.AssetKey([PREFIX, table])


DAILY_ASSETS = [RAW, *map(table_key, TABLES), table_key("model_trends")]
"""The keys of the assets that have a partition a day."""


_DAILY_DESCRIPTIONS = {
    "snapshots": "Start here to trace a figure: the row's sha256 is that of the file in the raw archive.",
    "task_classifications": "For example: which share of all requests is debugging code?",
    "macro_categories": "The groups are `code`, `data`, `agent` and `general`; the figures are OpenRouter's own sums.",
    "task_models": "The lists end at the top models by requests, so a tag's shares sum to less than 1.",
    "model_leaderboard": (
        "For all traffic and for each macro-category. `usage_share` is what the published lists attribute to the "
        "model, a lower bound; `usage_share_upper` and the best and worst rank say what the lists leave open. A share "
        "above its bound would end the run before anything is written, so it needs no check here."
    ),
    "model_trends": (
        "Changes against 1 and 7 days before, the first day, and for how many days a model has been listed. A view: an "
        "older day that is imported later is in it at once."
    ),
}


def asset_specs() -> list[dg.AssetSpec]:
    """Return the specs of the raw answer, the daily tables, the leaderboard and its trends, as they are made."""
    daily = [name for name in TABLES if name != "model_leaderboard"]
    return [
        _raw_spec(),
        *(_table_spec(name, "daily_tables", deps=[RAW]) for name in daily),
        _table_spec(
            "model_leaderboard",
            "analysis",
            deps=[table_key("task_classifications"), table_key("task_models")],
        ),
        _table_spec("model_trends", "analysis", deps=[table_key("model_leaderboard")]),
    ]


def report_spec() -> dg.AssetSpec:
    """Return the spec of the report, which is not partitioned."""
    updated = dg.AutomationCondition.any_deps_updated().since_last_handled()
    at_work = dg.AutomationCondition.any_deps_in_progress() | dg.AutomationCondition.in_progress()
    return dg.AssetSpec(
        REPORT,
        deps=[*map(table_key, TABLES), table_key("model_trends")],
        description=(
            "The newest day's market shares as one page to read and pass on, and its main picture as a PNG. The page "
            "needs no network: open the file in a browser. It shows the leaderboard with its bounds, the task mix, the "
            "history, and where the figures come from. Its run config has `day`, for any other day."
        ),
        kinds={"report", "python"},
        **_shared("analysis"),
        # For what changes without it: an import, or a backfill with days missing.
        automation_condition=updated & ~at_work,
        metadata=_code_reference(report, "how it is made"),
    )


def check_specs() -> list[dg.AssetCheckSpec]:
    """Return the checks on the rules, and those on the history."""
    rules = [
        dg.AssetCheckSpec(check.name, asset=table_key(check.table), description=_check_description(check))
        for check in CHECKS.values()
    ]
    history = [
        dg.AssetCheckSpec(key.name, asset=key.asset_key, description=text) for key, text in HISTORY_CHECKS.items()
    ]
    return rules + history


def _check_description(check: Check) -> str:
    effect = "A day that breaks it is refused." if check.severity == "ERROR" else "A warning; the day is let through."
    return f"{check.description} {effect}"


def _shared(group: str) -> dict[str, Any]:
    """Return what every spec of a group says."""
    return {"group_name": group, "owners": OWNERS, "code_version": CODE_VERSION, "tags": {"layer": group}}


def _raw_spec() -> dg.AssetSpec:
    return dg.AssetSpec(
        RAW,
        description=(
            "OpenRouter's answer for the day, byte for byte as it came, in the append-only archive. The API keeps no "
            "history: it serves only the newest completed UTC day, so a day that is not fetched is lost."
        ),
        kinds={"python", "json"},
        **_shared("source"),
        partitions_def=daily_partitions,
        metadata=_code_reference(folder.Archive, "the archive"),
        # The day is served from 00:00 UTC on; at 06:00 there is still time to mend what is wrong.
        freshness_policy=dg.FreshnessPolicy.cron("0 6 * * *", lower_bound_delta=timedelta(hours=6), timezone="UTC"),
        skippable=True,
    )


def _table_spec(name: str, group: str, deps: Sequence[dg.AssetKey]) -> dg.AssetSpec:
    model = RELATIONS[name]
    source: Any = leaderboard.rank if name == "model_leaderboard" else model
    return dg.AssetSpec(
        table_key(name),
        deps=deps,
        description=f"{model.summary()} {_DAILY_DESCRIPTIONS[name]}",
        kinds={"duckdb", "view"} if name in VIEWS else {"duckdb", "polars", "pandera"},
        **_shared(group),
        partitions_def=daily_partitions,
        metadata={
            "dagster/table_name": f"{SCHEMA}.{name}",
            "dagster/column_schema": _column_schema(name),
            # What the I/O manager needs to load a partition of it for an asset downstream.
            "partition_expr": "as_of",
            **_code_reference(source, "how it is made" if name == "model_leaderboard" else "its contract"),
        },
        skippable=True,
    )


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
    line = inspect.getsourcelines(source)[1]
    with warnings.catch_warnings():
        # Dagster calls code references beta at each use; whoever starts the UI cannot do anything about it.
        warnings.simplefilter("ignore", dg.BetaWarning)
        reference = dg.LocalFileCodeReference(file_path=path, line_number=line, label=label)
        return {"dagster/code_references": dg.CodeReferencesMetadataValue(code_references=[reference])}
