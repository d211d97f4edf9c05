"""The step that fetches a day's model catalogue and loads its table."""

# No `from __future__ import annotations` here: Dagster reads the annotations of an asset's parameters.

from collections.abc import Iterator
from datetime import date
from typing import Any

import dagster as dg
from pydantic import Field

from orpipeline.capture import Fetch, capture
from orpipeline.catalogue import CATALOGUE
from orpipeline.clock import day_spans, utc_now
from orpipeline.contracts.rules import PLAUSIBLE_COUNT, PRICES
from orpipeline.defs.checks import Check
from orpipeline.defs.events import Materialization, failure, raw_materialization, recorded, run_days
from orpipeline.defs.metadata import findings_table
from orpipeline.defs.names import Names
from orpipeline.defs.runs import observation
from orpipeline.defs.specs import Labels, catalogue_specs
from orpipeline.errors import OrpipelineError
from orpipeline.load import Catalogues, load_catalogues

CHECK = Check(
    "catalogue_is_valid",
    "models",
    "Every model of the catalogue has an id, a permaslug, a name and valid prices, and is listed once. The result also "
    "shows how many models of the day's leaderboard the catalogue has.",
    (PRICES, PLAUSIBLE_COUNT),
)


class CatalogueConfig(dg.Config):
    """The run config of the catalogue's step."""

    fetch: Fetch = Field(
        default=Fetch.auto,
        description="`auto`: call the API for the newest completed UTC day if the archive lacks its catalogue. "
        "`always`: call it in any case. `never`: use the archive alone.",
    )


def catalogue_step(names: Names, partitions: dg.DailyPartitionsDefinition, labels: Labels) -> dg.AssetsDefinition:
    """Return the step that materializes the raw catalogue and the table `models`.

    It comes after the classifications of the same run, and fails the run only if it was selected without them.
    Otherwise the partition stays missing, and a warning and an observation of the raw catalogue tell why.
    """

    @dg.multi_asset(
        name=names.op("catalogue"),
        description="Fetches the day's model catalogue, archives it, validates it, and replaces its rows in `models`.",
        specs=catalogue_specs(names, partitions, labels),
        check_specs=[CHECK.spec(names, blocking=False)],  # a rejected catalogue fails no run
        partitions_def=partitions,
        backfill_policy=dg.BackfillPolicy.single_run(),
        can_subset=True,
        op_tags={"dagster/priority": "-1"},
        required_resource_keys={names.api, names.archive, names.warehouse},
    )
    def catalogue(
        context: dg.AssetExecutionContext, config: CatalogueConfig
    ) -> Iterator[dg.MaterializeResult[Any] | dg.AssetCheckResult]:
        resources, now = context.resources._asdict(), utc_now()
        archive, spool = resources[names.archive].archive(), resources[names.archive].waiting()
        of_catalogue = archive.of(CATALOGUE)
        days = run_days(context) or of_catalogue.days()[-1:]  # checks that run alone have no partition
        if not days:
            return
        errors: dict[date, OrpipelineError] = {}
        try:
            client = resources[names.api].client(CATALOGUE)
            fetch = config.fetch if context.selected_asset_keys else Fetch.never
            capture(client, of_catalogue, days, fetch, now, spool=spool and spool.of(CATALOGUE))
        except OrpipelineError as error:
            errors[days[-1]] = error
        try:
            if any(of_catalogue.revisions_of(days).values()):
                loaded = load_catalogues(archive, resources[names.warehouse].warehouse(), days, now=now)
                materialized = catalogue_materializations(names, loaded)
                yield from recorded(context, names, materialized, complete=not loaded.errors)
                yield from _check_results(names, loaded)
                errors = {**loaded.errors, **errors}
        except OrpipelineError as error:
            errors[days[-1]] = error
        for day, why in errors.items():
            context.log.warning(f"The model catalogue of {day} is missing. {why}")
            name, next_attempt = type(why).__name__, why.next_attempt
            context.log_event(observation(names, day, str(why), name, next_attempt, asset="raw_models"))
        selected = context.run.asset_selection
        if errors and selected and names.raw not in selected:
            raise failure(next(iter(errors.values())))

    return catalogue


def catalogue_materializations(names: Names, loaded: Catalogues) -> Iterator[Materialization]:
    """Yield the materializations of the raw catalogue and of its table for each loaded day."""
    raw, models = names.catalogue_assets
    by_day = dict(loaded.rows.group_by("as_of").len().iter_rows())
    for day, revision in loaded.revisions.items():
        content = loaded.contents[revision]
        yield raw_materialization(raw, day, revision, content)
        yield Materialization(models, day, content.sha256, {"models": by_day[day]})


def _check_results(names: Names, loaded: Catalogues) -> Iterator[dg.AssetCheckResult]:
    if not loaded.contents:
        return
    broken = loaded.findings.filter(severity="ERROR")
    listed, found = len(loaded.named), len(loaded.named.drop_nulls("name"))
    yield dg.AssetCheckResult(
        asset_key=names.asset(CHECK.table),
        check_name=CHECK.name,
        passed=broken.is_empty(),
        severity=dg.AssetCheckSeverity.ERROR,
        metadata={
            "days": ", ".join(day_spans([revision.as_of for revision in loaded.contents if revision.as_of])),
            "leaderboard": f"{found} of {listed} models are in the catalogue",
            **({} if loaded.findings.is_empty() else {"first_findings": findings_table(loaded.findings)}),
        },
    )
