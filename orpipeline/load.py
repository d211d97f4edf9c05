"""A day's way from the archive: choose a revision, validate it, replace its rows in all tables.

Each step works on many days at once. The tables are a pure function of the archive: `rebuild` gives the same rows.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import TypeVar

import polars as pl

from orpipeline.archive import Archive, Content, Revision
from orpipeline.catalogue import CATALOGUE
from orpipeline.catalogue.rows import catalogue_rows
from orpipeline.clock import day_spans, missing_days, newest_completed_day
from orpipeline.contracts.findings import FINDINGS_SCHEMA, rejected_days, rejection
from orpipeline.contracts.frames import Frames, parse
from orpipeline.contracts.rules import ALL, COMPARED_DAYS
from orpipeline.contracts.tables import RELATIONS, TABLES
from orpipeline.contracts.validation import validate
from orpipeline.errors import DamagedWarehouseError, DayNotAvailableError, NextAttempt, OrpipelineError, StoreError
from orpipeline.leaderboard import leaderboards
from orpipeline.text import citation
from orpipeline.warehouse.tables import Tables
from orpipeline.warehouse.warehouse import Warehouse

_log = logging.getLogger(__name__)
_Outcome = TypeVar("_Outcome")

DAYS_AT_ONCE = 400
"""How many days to parse, validate and write together: about a year, in about 200 MB of memory and some seconds."""


# Choose and validate


@dataclass(frozen=True)
class Validated:
    """What the archive has for some days, and which of it belongs in the tables.

    `newest`: the newest revision of each archived day, if its bytes are intact. `chosen`: the revision for the tables:
    the newest valid one, or the requested one. `contents`: what these revisions hold. `frames`: the chosen ones as
    frames. `findings`: of the newest revisions, with the columns of `orpipeline.contracts.findings.FINDINGS_SCHEMA`.
    `warnings`: the findings of severity WARN, of the chosen revisions. `errors`: why a day's newest response is not in
    the tables (not archived, damaged, or rejected).
    """

    newest: Mapping[date, Revision]
    chosen: Mapping[date, Revision]
    contents: Mapping[Revision, Content]
    frames: Frames
    findings: pl.DataFrame
    warnings: pl.DataFrame
    errors: Mapping[date, OrpipelineError]

    @property
    def raw(self) -> Mapping[date, Revision]:
        """Each day's raw response: the newest revision or, if that is damaged, the chosen one."""
        return dict(sorted({**self.chosen, **self.newest}.items()))


def validate_days(
    archive: Archive,
    days: Iterable[date],
    *,
    now: datetime,
    served: date | None = None,
    revision: int | None = None,
) -> Validated:
    """Read each day's newest archived revision (or number `revision`) and check it against the contracts.

    A day whose newest response is rejected or damaged falls back to its newest valid revision. `served` is the `as_of`
    of the API's response, if it was just called: it distinguishes a day that is not published yet from a lost one.
    `now` is in UTC. An error of a day is not raised; it is in `errors`.
    """
    archived = archive.revisions_of(sorted(set(days)))
    wanted: dict[date, Revision] = {}
    contents: dict[Revision, Content] = {}
    errors: dict[date, OrpipelineError] = {}
    for day, revisions in archived.items():
        found = next((one for one in revisions if one.number == revision), None)
        if revision and found is None:
            there = ", ".join(str(one.number) for one in revisions) or "none"
            reason = f"The archive has no revision {revision} of {day}; it has: {there}."
            errors[day] = DayNotAvailableError(reason, next_attempt=NextAttempt.NEEDS_PERSON)
        elif revisions:
            wanted[day] = found or revisions[-1]
        else:
            errors[day] = _not_available(day, newest_completed_day(now), served)
    for (day, one), content in zip(wanted.items(), archive.read_all(wanted.values()), strict=True):
        if isinstance(content, StoreError):
            errors[day] = content
        else:
            contents[one] = content
    newest = {day: one for day, one in wanted.items() if one in contents}
    frames = parse((day, contents[one].body) for day, one in newest.items())
    findings = of_chosen = validate(frames)
    rejected = rejected_days(findings)
    chosen = {day: one for day, one in newest.items() if day not in rejected}
    unusable = [day for day in wanted if day not in chosen]
    for day in unusable:
        older = archived[day][: wanted[day].number - 1] if revision is None else []
        valid = _newest_valid(archive, day, older)
        if valid is not None:
            chosen[day] = valid[0]
            contents[valid[0]] = valid[1]
        if day in rejected:
            stored = f"use revision {valid[0].number}, the newest valid one" if valid else "are unchanged"
            errors[day] = rejection(day, findings, str(newest[day].path), stored)
    if unusable:
        frames = parse((day, contents[one].body) for day, one in sorted(chosen.items()))
        of_chosen = validate(frames)
    return Validated(newest, chosen, contents, frames, findings, of_chosen.filter(severity="WARN"), errors)


def with_novelties(validated: Validated, tables: Tables) -> Validated:
    """Return the same with the warnings that compare days in the tables: names that are new, and tags that are gone."""
    found = tables.novelties(list(validated.chosen))
    findings, warnings = (pl.concat([before, found]) for before in (validated.findings, validated.warnings))
    return replace(validated, findings=findings, warnings=warnings)


def _newest_valid(archive: Archive, day: date, revisions: Sequence[Revision]) -> tuple[Revision, Content] | None:
    for one in reversed(revisions):
        content = next(archive.read_all([one]))
        if isinstance(content, Content) and not rejected_days(validate(parse([(day, content.body)]))):
            return one, content
    return None


def _not_available(day: date, newest_day: date, served: date | None) -> DayNotAvailableError:
    """Return the error for a day without an archived response."""
    import_it = "Import that day if you have it from elsewhere; otherwise it is lost."
    is_lost = day < newest_day or (served is not None and served > day)
    if day > newest_day:
        reason = f"{day} has not ended yet in UTC; the newest available day is {newest_day}."
    elif served is not None and served > day:
        reason = f"The API already serves {served} (archived), and {day} can no longer be fetched. {import_it}"
    elif day < newest_day:
        reason = f"The archive has no response for {day}, and the API serves only {newest_day}. {import_it}"
    elif served is not None and served < day:
        reason = f"{day} is not published yet: the API still serves {served} (archived). Try again in a few minutes."
    else:
        reason = f"The archive has no response for {day}. Run it with fetch `auto` to call the API."
    return DayNotAvailableError(reason, next_attempt=NextAttempt.NEEDS_PERSON if is_lost else None)


# Rank and replace


@dataclass(frozen=True)
class Loaded:
    """What a load wrote and read, in one transaction.

    `frames`: the rows of each table, by name. `days`: the days in the tables. `compared`: the rows of
    `model_leaderboard` for all traffic, `COMPARED_DAYS` before each loaded day. `reloaded`: one line that tells why all
    archived days were loaded again first, or None. `names`: the catalogue's names of models. Without any archived
    response, the warehouse is not opened: `days` is None, and the others are empty.
    """

    validated: Validated
    frames: Mapping[str, pl.DataFrame] = field(default_factory=dict)
    days: Sequence[date] | None = None
    compared: pl.DataFrame = field(default_factory=pl.DataFrame)
    reloaded: str | None = None
    names: Mapping[str, str] = field(default_factory=dict)


def load_days(
    archive: Archive,
    warehouse: Warehouse,
    days: Sequence[date],
    *,
    now: datetime,
    served: date | None = None,
    revision: int | None = None,
) -> Loaded:
    """Lock the warehouse, validate the days' archived responses, and replace their rows in one transaction.

    The lock comes first: this function sees everything that other processes archived and wrote before, so an older
    revision never replaces a newer one. The arguments are those of `validate_days`. Other days keep their rows. If no
    response is archived, the warehouse is not opened. The findings also name tags and macro-categories that are new or
    missing. If the warehouse fails, its error is raised and nothing is written.

    If another version declared the tables, all archived days are loaded again first, in the same transaction. A damaged
    DuckDB file is kept aside, and a new one is loaded in the same way. A line in the log tells either.
    """
    if not any(archive.revisions_of(days).values()):
        return Loaded(validate_days(archive, days, now=now, served=served, revision=revision))

    def load(aside: Path | None) -> Loaded:
        reason = None
        with warehouse.writing() as tables:
            if aside is not None:
                yours = "Tables of yours that it had are not in the new one."
                reason = f"The damaged warehouse {warehouse.name} is kept aside as {aside}. {yours}"
            elif not tables.are_current:
                reason = f"Another version of orpipeline declared the tables in {warehouse.name}."
            if reason is not None:
                reason = f"{reason} {_load_all(archive, tables, now).summary()}"
                _log.warning("%s", reason)
            validated = validate_days(archive, days, now=now, served=served, revision=revision)
            frames = _write(tables, validated)
            before = [day - timedelta(days=COMPARED_DAYS) for day in validated.chosen]
            compared = tables.select(
                "model_leaderboard", "scope = ? AND list_contains(?::DATE[], as_of)", [ALL, before]
            )
            names = model_names(tables, max(validated.chosen)) if validated.chosen else {}
            return Loaded(with_novelties(validated, tables), frames, tables.days(), compared, reason, names)

    return _healed(warehouse, now, load)


def _healed(warehouse: Warehouse, now: datetime, load: Callable[[Path | None], _Outcome]) -> _Outcome:
    """Return what `load` returns. A damaged file is kept aside first, and `load` gets its new path.

    It gets None if there is no such file, as after another process has healed the warehouse.
    """
    try:
        return load(None)
    except DamagedWarehouseError:
        return load(warehouse.set_aside(now))


def load_batches(archive: Archive, warehouse: Warehouse, days: Iterable[date], *, now: datetime) -> Iterator[Loaded]:
    """Load many days as `load_days` does; yield each transaction of up to `DAYS_AT_ONCE` days."""
    for batch in _batches(days):
        yield load_days(archive, warehouse, batch, now=now)


def _write(tables: Tables, validated: Validated) -> dict[str, pl.DataFrame]:
    """Replace the rows of the chosen revisions' days through an open transaction, and return them by table."""
    frames = _rows(validated)
    tables.replace_days(validated.chosen, frames)
    return frames


def _rows(validated: Validated) -> dict[str, pl.DataFrame]:
    """Return the rows of all tables, by name, for the chosen revisions' days."""
    sources = pl.DataFrame(
        [_source(day, one, validated.contents[one]) for day, one in validated.chosen.items()], schema=_SOURCE_SCHEMA
    )
    days, parsed = sources.select("as_of"), validated.frames

    def of_days(frame: pl.DataFrame) -> pl.DataFrame:
        return frame.join(days, on="as_of", how="semi", maintain_order="left")

    return {
        "snapshots": sources.join(parsed.responses.drop("stated_as_of"), on="as_of", how="inner"),
        "macro_categories": of_days(parsed.macro_categories),
        **leaderboards(of_days(parsed.task_classifications), of_days(parsed.task_models)),
    }


_SOURCE_SCHEMA = {
    name: dtype
    for name, dtype in TABLES["snapshots"].polars_schema().items()
    if name not in ("window_days", "classification_count")  # these come from the response itself
}


def _source(day: date, revision: Revision, content: Content) -> dict[str, object]:
    return {
        "as_of": day,
        "revision": revision.number,
        "sha256": content.sha256,
        "bytes": len(content.body),
        "fetched_at": revision.fetched_at,
        "origin": revision.origin,
        "source": content.source,
        "citation": citation(day, revision.origin),
    }


# The model catalogue


@dataclass(frozen=True)
class Catalogues:
    """The validated catalogues of some days: the rows of `models`, and what is wrong. A missing day has an error."""

    rows: pl.DataFrame
    revisions: Mapping[date, Revision]
    """The newest revision of each day whose catalogue is valid."""
    contents: Mapping[Revision, Content]
    findings: pl.DataFrame
    errors: Mapping[date, OrpipelineError]
    named: pl.DataFrame = field(default_factory=pl.DataFrame)
    """The days' rows of `named_leaderboard` for all traffic."""


def validate_catalogues(archive: Archive, days: Iterable[date]) -> Catalogues:
    """Read each day's newest archived catalogue and check it. An error of a day is not raised; it is in `errors`."""
    rows = [pl.DataFrame(schema=RELATIONS["models"].polars_schema())]
    found = [pl.DataFrame(schema=FINDINGS_SCHEMA)]
    revisions: dict[date, Revision] = {}
    contents: dict[Revision, Content] = {}
    errors: dict[date, OrpipelineError] = {}
    archived = archive.of(CATALOGUE).revisions_of(sorted(set(days)))
    newest = {day: of_day[-1] for day, of_day in archived.items() if of_day}
    for day in sorted(archived.keys() - newest.keys()):
        reason = f"The archive has no model catalogue for {day}. Only the newest completed day's can be fetched."
        errors[day] = DayNotAvailableError(reason, next_attempt=NextAttempt.NEEDS_PERSON)
    for (day, one), content in zip(newest.items(), archive.read_all(newest.values()), strict=True):
        if isinstance(content, StoreError):
            errors[day] = content
            continue
        of_day, findings = catalogue_rows(day, content.body)
        found.append(findings)
        contents[one] = content
        if rejected_days(findings):
            errors[day] = rejection(day, findings, str(one.path))
        else:
            rows.append(of_day)
            revisions[day] = one
    return Catalogues(pl.concat(rows), revisions, contents, pl.concat(found), errors)


def load_catalogues(archive: Archive, warehouse: Warehouse, days: Sequence[date], *, now: datetime) -> Catalogues:
    """Lock the warehouse, validate the days' archived catalogues, and replace their rows in one transaction.

    Days without a valid catalogue keep their rows. If another version declared the tables, all archived days are loaded
    again first.
    """
    with warehouse.writing() as tables:
        if not tables.ours or not tables.are_current:
            _load_all(archive, tables, now)
        catalogues = validate_catalogues(archive, days)
        tables.replace("models", catalogues.revisions, catalogues.rows)
        named = tables.select("named_leaderboard", "scope = ? AND list_contains(?::DATE[], as_of)", [ALL, days])
        return replace(catalogues, named=named)


def model_names(tables: Tables, as_of: date) -> dict[str, str]:
    """Return the catalogue's names of models, by the id that leaderboards use, as of a day.

    The catalogue is that of the day or the newest one before. `Z.ai: GLM 5.3` becomes `GLM 5.3`, because the author is
    shown beside it. A name that several ids share is left out: their ids tell them apart.
    """
    models = tables.select("models", "as_of <= ? QUALIFY as_of = max(as_of) OVER ()", [as_of])
    variant = pl.col("model_id").str.extract(":(.*)$")
    listed_as = pl.concat_str("permaslug", pl.concat_str(pl.lit(":"), variant).fill_null(""))
    without_author = pl.col("name").str.replace("^[^:]*: ", "")
    entries = models.select(name=without_author, listed_as=listed_as).unique()
    unique = entries.filter(pl.col("name").is_unique(), pl.col("listed_as").is_unique())
    return dict(unique.select("listed_as", "name").iter_rows())


def _batches(days: Iterable[date]) -> Iterator[list[date]]:
    ordered = sorted(set(days))
    for start in range(0, len(ordered), DAYS_AT_ONCE):
        yield ordered[start : start + DAYS_AT_ONCE]


# Rebuild


@dataclass
class Rebuilt:
    """The outcome of a rebuild."""

    days: list[date] = field(default_factory=list)
    """Days that were loaded."""
    gone: list[date] = field(default_factory=list)
    """Days that the tables no longer have: the archive has no valid response for them."""
    errors: dict[date, OrpipelineError] = field(default_factory=dict)
    """Days whose newest response is rejected or damaged."""
    set_aside: Path | None = None
    """Where a damaged DuckDB file is now. Tables of yours that it had are not in the new one."""

    def summary(self) -> str:
        """Return one sentence: how many days were loaded from the archive, and which were not."""
        failed = sorted({*self.errors, *self.gone})
        others = f"; not loaded: {', '.join(day_spans(failed))}" if failed else ""
        count = "1 day was" if len(self.days) == 1 else f"{len(self.days)} days were"
        return f"{count} loaded from the archive again{others}."


def rebuild(
    archive: Archive,
    warehouse: Warehouse,
    *,
    now: datetime,
    since: date | None = None,
    until: date | None = None,
) -> Rebuilt:
    """Drop our tables and load every archived day, in one transaction.

    With `since` or `until`, replace the rows of these days only, unless another version declared the tables. Tables of
    your own stay, and no reader sees a part of a rebuild. A damaged DuckDB file is kept aside. Raises the warehouse's
    errors.
    """
    is_whole = since is None and until is None
    days = [day for day in archive.days() if (since or date.min) <= day <= (until or date.max)]
    if not days and not (is_whole and warehouse.exists):
        return Rebuilt()

    def load(aside: Path | None) -> Rebuilt:
        with warehouse.writing() as tables:
            if is_whole or aside is not None or not tables.are_current:
                rebuilt = _load_all(archive, tables, now)
            else:
                rebuilt = _load_into(archive, tables, now, since or date.min, until or date.max)
            rebuilt.set_aside = aside
            return rebuilt

    return _healed(warehouse, now, load)


def _load_all(archive: Archive, tables: Tables, now: datetime) -> Rebuilt:
    """Drop our tables, create them as declared, and load every archived day, through an open transaction."""
    stored = tables.days() if tables.are_current else []
    tables.recreate()
    rebuilt = _load_into(archive, tables, now, date.min, date.max)
    rebuilt.gone = sorted(set(stored) - set(rebuilt.days))
    return rebuilt


def _load_into(archive: Archive, tables: Tables, now: datetime, since: date, until: date) -> Rebuilt:
    rebuilt = Rebuilt()
    days, catalogue_days = (
        [day for day in one.days() if since <= day <= until] for one in (archive, archive.of(CATALOGUE))
    )
    for batch in _batches(catalogue_days):
        catalogues = validate_catalogues(archive, batch)
        for error in catalogues.errors.values():
            _log.warning("The model catalogue is not loaded. %s", error)
        tables.replace("models", batch, catalogues.rows)
    for batch in _batches(days):
        validated = validate_days(archive, batch, now=now)
        _write(tables, validated)
        rebuilt.days += sorted(validated.chosen)
        rebuilt.errors |= validated.errors
    return rebuilt


def lost_days(archive: Archive, table_days: Iterable[date], newest: date) -> list[date]:
    """Return the days between the first known day and `newest` that are in neither the archive nor the tables."""
    known = {*archive.days(), *table_days}
    return [day for day in missing_days({*known, newest}) if day < newest] if known else []
