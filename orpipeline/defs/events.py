"""Materialization events: one for each asset and day, with metadata and the data version of the day's bytes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import dagster as dg
import polars as pl

# Dagster stores provenance in these tags; the functions that build them have no public name.
from dagster._core.definitions.data_version import (
    CODE_VERSION_TAG,
    DATA_VERSION_IS_USER_PROVIDED_TAG,
    DATA_VERSION_TAG,
    NULL_EVENT_POINTER,
    get_input_data_version_tag,
    get_input_event_pointer_tag,
)

# Dagster applies a step's output, with the tags of one event, to every partition of the run. Days that already have
# their own events need an output without events. This marker, made for an old feature of Dagster, is the only way.
from dagster._core.definitions.source_asset import SYSTEM_METADATA_KEY_SOURCE_ASSET_OBSERVATION as WITHOUT_EVENTS

from orpipeline.archive import Content, Revision
from orpipeline.contracts.rules import COMPARED_DAYS
from orpipeline.defs.metadata import (
    authors_metadata,
    coverage_metadata,
    findings_table,
    leaderboard_metadata,
    macros_metadata,
    table,
    tasks_metadata,
    trends_metadata,
)
from orpipeline.defs.names import Names
from orpipeline.errors import InvalidSnapshotError, OrpipelineError, PartlyImportedError, StatusError
from orpipeline.load import Loaded, Validated
from orpipeline.text import citation
from orpipeline.warehouse.schema import CODE_VERSION

_SHOWN_FILES = 20  # the run's log has all


@dataclass(frozen=True)
class Materialization:
    """An asset's day, the sha256 of the response that it comes from, and its metadata."""

    key: dg.AssetKey
    day: date
    sha256: str
    metadata: dict[str, Any]

    @property
    def data_version(self) -> dg.DataVersion:
        """The sha256 of the day's bytes."""
        return dg.DataVersion(self.sha256)

    def event(self, names: Names) -> dg.AssetMaterialization:
        """Return the event to log, with the version tags that Dagster gives to a step's own outputs.

        All of a day's assets come from the same bytes, so each asset has the same data version as its inputs.
        """
        tags = {
            CODE_VERSION_TAG: CODE_VERSION,
            DATA_VERSION_TAG: self.sha256,
            DATA_VERSION_IS_USER_PROVIDED_TAG: "true",
        }
        for key in names.inputs(self.key):
            tags |= {get_input_data_version_tag(key): self.sha256, get_input_event_pointer_tag(key): NULL_EVENT_POINTER}
        return dg.AssetMaterialization(self.key, partition=self.day.isoformat(), metadata=self.metadata, tags=tags)


def raw_materializations(names: Names, validated: Validated) -> Iterator[Materialization]:
    """Yield a materialization of each day's raw response."""
    for day, revision in validated.raw.items():
        yield raw_materialization(names.raw, day, revision, validated.contents[revision])


def raw_materialization(key: dg.AssetKey, day: date, revision: Revision, content: Content) -> Materialization:
    """Return the materialization of a day's archived response."""
    at = {"fetched_at": dg.MetadataValue.timestamp(revision.fetched_at)} if revision.fetched_at else {}
    metadata = {
        "file": dg.MetadataValue.path(str(revision.path)),
        "sha256": content.sha256,
        **at,
        "origin": revision.origin,
        "bytes": len(content.body),
        "citation": citation(day, revision.origin),
    }
    return Materialization(key, day, content.sha256, metadata)


def table_materializations(names: Names, loaded: Loaded) -> Iterator[Materialization]:
    """Yield the materializations of the tables and of the view for each loaded day, from the rows that were written.

    The view is computed when you read it; its event tells that it has the day, and shows the day's changes.
    """
    validated = loaded.validated
    days = sorted(validated.chosen)
    if not days:
        return
    warnings = dict(validated.warnings.group_by("as_of").len().iter_rows())
    rows_of = {name: _by_day(frame) for name, frame in loaded.frames.items()}
    for day in days:
        revision = validated.chosen[day]
        sha256 = validated.contents[revision].sha256
        board = rows_of["model_leaderboard"][day]
        week_before = loaded.compared.filter(as_of=day - timedelta(days=COMPARED_DAYS))
        shown: dict[str, dict[str, Any]] = {
            "snapshots": {"revision": revision.number, "validation_warnings": warnings.get(day, 0)},
            "task_classifications": tasks_metadata(rows_of["task_classifications"][day]),
            "macro_categories": macros_metadata(rows_of["macro_categories"][day]),
            "task_models": {"models": rows_of["task_models"][day]["model_id"].n_unique()},
            "model_leaderboard": leaderboard_metadata(board, loaded.names),
            "model_trends": trends_metadata(board, week_before, loaded.names),
            "author_leaderboard": authors_metadata(rows_of["author_leaderboard"][day]),
            "leaderboard_coverage": coverage_metadata(rows_of["leaderboard_coverage"][day]),
        }
        for name, metadata in shown.items():
            source = {"citation": citation(day, revision.origin)}
            yield Materialization(names.asset(name), day, sha256, {**metadata, **source})


def run_days(context: dg.AssetExecutionContext) -> list[date]:
    """Return the days of a run's partitions, oldest first; none for a run without partitions."""
    if not (context.has_partition_key or context.has_partition_key_range):
        return []
    return [date.fromisoformat(key) for key in sorted(context.partition_keys)]


def recorded(
    context: dg.AssetExecutionContext, names: Names, materializations: Iterable[Materialization], *, complete: bool
) -> Iterator[dg.MaterializeResult[Any]]:
    """Record which partitions of which assets are materialized now.

    A run of one day yields outputs, which Dagster records. In a range each day is logged by itself, with the data
    version of its own bytes. Outputs follow only if every day is `complete`, because steps downstream run on all of the
    run's partitions. Tables that changed without being selected are logged too.
    """
    for key, of_asset in by_asset(materializations).items():
        is_output = complete and key in context.selected_asset_keys
        if is_output and len(of_asset) == 1:
            yield dg.MaterializeResult(
                asset_key=key, metadata=of_asset[0].metadata, data_version=of_asset[0].data_version
            )
            continue
        for materialization in of_asset:
            context.log_event(materialization.event(names))
        if is_output:
            yield dg.MaterializeResult(asset_key=key, metadata={WITHOUT_EVENTS: True})


def by_asset(materializations: Iterable[Materialization]) -> dict[dg.AssetKey, list[Materialization]]:
    """Return materializations by their asset, in order."""
    grouped: dict[dg.AssetKey, list[Materialization]] = {}
    for materialization in materializations:
        grouped.setdefault(materialization.key, []).append(materialization)
    return grouped


def failure(error: OrpipelineError) -> dg.Failure:
    """Return the failure that ends a run with one of our errors. Its metadata has the error's name and details."""
    metadata: dict[str, Any] = {"error": type(error).__name__, "retry": error.next_attempt.value}
    if isinstance(error, InvalidSnapshotError):
        metadata["findings"] = findings_table(error.findings)
    if isinstance(error, PartlyImportedError):
        metadata["rejected"] = table(
            {"file": source, "why": reason} for source, reason in error.rejected[:_SHOWN_FILES]
        )
    if isinstance(error, StatusError) and error.retry_at:
        metadata["next_attempt"] = dg.MetadataValue.timestamp(error.retry_at)
    return dg.Failure(str(error), metadata=metadata, allow_retries=False)


def _by_day(frame: pl.DataFrame) -> defaultdict[date, pl.DataFrame]:
    """Return a frame's rows by day; a day without rows has an empty frame."""
    parts = {key[0]: rows for key, rows in frame.partition_by("as_of", as_dict=True).items()}
    return defaultdict(frame.clear, parts)
