"""Validate responses: every rule at once, all findings in one frame.

pandera judges single rows and keys, with the tables' own models; its failure cases become findings. The rules that
cross rows and tables (totals, sums, quotients, order) are functions below. A share that is NULL or not finite is a
finding of its own column; the figures that need it are NULL there, and a NULL comparison is not a finding.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date
from typing import Any

import pandera.polars as pa
import polars as pl
from pandera.errors import SchemaErrors

from orpipeline.contracts import rules
from orpipeline.contracts.findings import FINDINGS_SCHEMA, broken, finding_frame, shown, shown_names, shown_values
from orpipeline.contracts.frames import Frames
from orpipeline.contracts.rules import FLOAT_SLACK, HALF_STEP, RULES, Rule
from orpipeline.contracts.tables import TABLES, folded
from orpipeline.errors import InvalidSnapshotError
from orpipeline.openrouter.response import WINDOW_DAYS

_RAW = "raw_task_classifications"
_DOCUMENTED_PREFIXES = ("code", "data", "agent")
_SHARES = ("usage_share", "token_share")
_CATEGORY_SHARES = ("category_usage_share", "category_token_share")
_MODEL_SHARES = ("tag_usage_share", "tag_token_share")


def validate(frames: Frames) -> pl.DataFrame:
    """Return every finding on `frames`, errors first, with the columns of `FINDINGS_SCHEMA`."""
    found = [*_whole_response(frames)]
    for table in ("task_classifications", "macro_categories", "task_models"):
        frame = getattr(frames, table)
        found += row_findings(table, TABLES[table].response_schema(frame.columns), frame, frames.originals)
    found += _across(frames)
    return pl.concat(found).sort("severity", "as_of", maintain_order=True)


def require_bounds(name: str, board: pl.DataFrame) -> None:
    """Raise InvalidSnapshotError if a row of a leaderboard, which we compute, breaks a rule of its table's model."""
    findings = pl.concat(row_findings(name, TABLES[name].to_schema(), board, {}))
    if not findings.is_empty():
        first = findings.row(0, named=True)
        raise InvalidSnapshotError(
            f"The rows for table {name} break {first['rule']}, first in column {first['column']}, row "
            f"{first['row']}: {first['found']}. Nothing was written.",
            findings,
        )


# Single rows and keys, by pandera


def row_findings(
    table: str, schema: pa.DataFrameSchema, frame: pl.DataFrame, originals: Mapping[tuple[str, str, int], str]
) -> Iterator[pl.DataFrame]:
    """Yield the findings of a frame: what pandera reports, by rule.

    `originals` has the JSON text of each value that did not fit its column, by table, column and row number.
    """
    yield pl.DataFrame(schema=FINDINGS_SCHEMA)
    try:
        schema.validate(frame, lazy=True)
    except SchemaErrors as error:
        cases = error.failure_cases
    else:
        return
    key = [name for name in schema.unique or [] if name not in ("as_of", "window_days")]
    places: dict[Rule, dict[tuple[str, int], tuple[Any, ...]]] = {}
    for column, check, index in cases.select("column", "check", "index").unique(maintain_order=True).iter_rows():
        rule = _rule_of(schema, column, check)
        place = column if column in schema.columns else key[-1]
        row = frame.row(index, named=True)
        named = " / ".join(str(row[name]) for name in key) or str(row["as_of"])
        if column in schema.columns:
            found = originals.get((table, column, index), shown(row[column]))
        else:
            found = shown_values(row, [name for name in row if name not in (schema.unique or [])])
        places.setdefault(rule, {})[place, index] = (row["as_of"], place, named, found)
    for rule, of_rule in places.items():
        yield finding_frame(rule, table, (of_rule[at] for at in sorted(of_rule)))


def _rule_of(schema: pa.DataFrameSchema, column: str, check: str) -> Rule:
    """Return the rule that one of pandera's checks stands for."""
    if check == "not_nullable":
        missing: Rule = schema.columns[column].metadata["missing"]
        return missing
    return rules.UNIQUE if check == "multiple_fields_uniqueness" else RULES[check]


# A response as a whole


def _whole_response(frames: Frames) -> Iterator[pl.DataFrame]:
    """Yield the findings on what a response states about itself; a value of the wrong type is shown as it was."""

    def of(rule: Rule, places: Iterable[tuple[date, str, str]]) -> pl.DataFrame:
        return finding_frame(rule, _RAW, ((day, path, str(day), found) for day, path, found in places))

    yield of(rules.REQUIRED_FIELDS, ((defect.as_of, defect.path, defect.found) for defect in frames.defects))
    repeated, unknown = frames.repeated_keys.items(), frames.unknown_fields.items()
    yield of(rules.JSON_KEYS, ((day, "(response)", shown_names(sorted(keys))) for day, keys in repeated))
    yield of(
        rules.NO_UNKNOWN_FIELDS,
        ((day, path, "an undocumented field") for day, paths in unknown for path in sorted(paths)),
    )
    yield of(
        rules.SIZE,
        (
            (day, "classifications", f"tags={tags}, models={models}, macro_categories={macros}")
            for day, (tags, models, macros) in frames.oversized.items()
        ),
    )
    responses = frames.responses.with_row_index("index")
    for rule, column, holds in (
        (rules.AS_OF, "stated_as_of", pl.col("stated_as_of").eq_missing(pl.col("as_of"))),
        (rules.WINDOW, "window_days", pl.col("window_days").eq_missing(WINDOW_DAYS)),
        (rules.NOT_EMPTY, "classification_count", pl.col("classification_count") > 0),
    ):
        wrong = responses.filter(~holds).select("as_of", "index", column).iter_rows()
        original = frames.originals
        yield of(
            rule,
            ((day, column, original.get(("responses", column, n), shown(value))) for day, n, value in wrong),
        )


# Across rows and tables


def _across(frames: Frames) -> Iterator[pl.DataFrame]:
    yield from _order(frames)
    yield from _distinct(frames)
    tags = _finite(frames.task_classifications.drop_nulls("tag"))
    # A macro-category that is listed twice breaks `keys_are_unique`; here it must not multiply rows.
    macros = _finite(frames.macro_categories.drop_nulls("key")).unique(
        ["as_of", "key"], keep="first", maintain_order=True
    )
    grouped = tags.drop_nulls("macro_category")
    yield _totals(tags)
    yield _category_totals(grouped)
    yield from _tag_groups(grouped, macros)
    yield _category_shares(grouped, macros)
    yield _macro_sums(grouped, macros)
    yield _model_sums(_finite(frames.task_models.drop_nulls("tag")))


def _order(frames: Frames) -> Iterator[pl.DataFrame]:
    for table, share, group, key in (
        ("task_classifications", "usage_share", ["as_of"], ["tag"]),
        ("task_models", "tag_usage_share", ["as_of", "tag"], ["tag", "model_id"]),
    ):
        rows = getattr(frames, table).with_columns(before=pl.col(share).shift(1).over(group))
        yield broken(rules.ORDER, table, rows.filter(pl.col(share) > pl.col("before")), share, key, ["before", share])


def _distinct(frames: Frames) -> Iterator[pl.DataFrame]:
    tags, macros = frames.task_classifications, frames.macro_categories
    keys = [macros.select("as_of", name="key"), tags.select("as_of", name="macro_category")]
    for table, column, names in (
        ("task_classifications", "tag", tags.select("as_of", name="tag")),
        ("macro_categories", "key", pl.concat(keys)),
        ("task_models", "model_id", frames.task_models.select("as_of", name="model_id")),
    ):
        different = names.select(pl.col("name").drop_nulls().unique(maintain_order=True))
        spellings = (
            names.drop_nulls()
            .unique(maintain_order=True)
            .join(different.with_columns(folded=folded(pl.col("name"))), on="name", maintain_order="left")
            .group_by("as_of", "folded", maintain_order=True)
            .agg(spellings="name")
            .filter(pl.col("spellings").list.len() > 1)
        )
        places = ((day, column, found[0], shown_names(found)) for day, _, found in spellings.iter_rows())
        yield finding_frame(rules.DISTINCT, table, places)


def _totals(tags: pl.DataFrame) -> pl.DataFrame:
    sums = _sums(tags, ["as_of"], _SHARES)
    off = sums.filter((pl.col("summed") - 1).abs() > pl.col("tolerance"))
    return broken(rules.TOTALS, "task_classifications", off, pl.col("share"), ["as_of"], ["summed", "tolerance"])


def _category_totals(tags: pl.DataFrame) -> pl.DataFrame:
    by = ["as_of", "macro_category"]
    traffic = _sums(tags, by, _SHARES).select(*by, share=_category("share"), traffic="summed")
    sums = _sums(tags, by, _CATEGORY_SHARES).join(traffic, on=[*by, "share"], how="left", maintain_order="left")
    # A macro-category without any traffic has no fractions to sum.
    is_empty = (pl.col("traffic") == 0) & (pl.col("summed") == 0)
    off = sums.filter(((pl.col("summed") - 1).abs() > pl.col("tolerance")) & ~is_empty.fill_null(False))
    return broken(
        rules.CATEGORY_TOTALS,
        "task_classifications",
        off,
        pl.col("share"),
        ["macro_category"],
        ["summed", "tolerance"],
    )


def _tag_groups(tags: pl.DataFrame, macros: pl.DataFrame) -> Iterator[pl.DataFrame]:
    table, column = "task_classifications", "macro_category"
    listed = macros.select("as_of", macro_category="key")
    unlisted = tags.join(listed, on=["as_of", column], how="anti", maintain_order="left")
    yield broken(rules.MACRO_LISTED, table, unlisted, column, ["tag"], [column])
    macro, prefix = pl.col(column), pl.col("prefix")
    prefixed = tags.with_columns(prefix=pl.col("tag").str.extract(r"(?s)^([^:]*):"))
    # A prefix that is not documented may belong to a new macro-category of that name, or to `general`.
    follows = (
        pl.when(prefix.is_in(_DOCUMENTED_PREFIXES))
        .then(macro == prefix)
        .when(prefix.is_not_null())
        .then((macro == "general") | (macro == prefix))
        .otherwise(~macro.is_in(_DOCUMENTED_PREFIXES))
    )
    yield broken(rules.MACRO_PREFIX, table, prefixed.filter(~follows), column, ["tag"], ["prefix", column])


def _category_shares(tags: pl.DataFrame, macros: pl.DataFrame) -> pl.DataFrame:
    stated = macros.select("as_of", "usage_share", "token_share", macro_category="key")
    rows = tags.join(stated, on=["as_of", "macro_category"], how="inner", suffix="_macro", maintain_order="left")
    category, macro, tag = pl.col("category_share"), pl.col("macro_share"), pl.col("tag_share")
    products = pl.concat(
        rows.select(
            "as_of",
            "tag",
            share=_category(pl.lit(share)),
            category_share=f"category_{share}",
            macro_share=f"{share}_macro",
            tag_share=share,
        )
        for share in _SHARES
    ).with_columns(tolerance=HALF_STEP * (1 + category + macro) + 3 * HALF_STEP**2 + FLOAT_SLACK)
    return broken(
        rules.CATEGORY_SHARES,
        "task_classifications",
        products.filter((category * macro - tag).abs() > pl.col("tolerance")),
        pl.col("share"),
        ["tag"],
        ["category_share", "macro_share", "tag_share", "tolerance"],
    )


def _macro_sums(tags: pl.DataFrame, macros: pl.DataFrame) -> pl.DataFrame:
    sums = _sums(tags, ["as_of", "macro_category"], _SHARES, stated=True).rename({"macro_category": "key"})
    stated = pl.concat(macros.select("as_of", "key", share=pl.lit(share), stated=share) for share in _SHARES)
    # The sum of a macro-category without tags is 0.
    has_no_tags = pl.col("tolerance").is_null()
    compared = stated.join(sums, on=["as_of", "key", "share"], how="left", maintain_order="left").with_columns(
        summed=pl.when(has_no_tags).then(0.0).otherwise("summed"),
        tolerance=pl.when(has_no_tags).then(HALF_STEP + FLOAT_SLACK).otherwise("tolerance"),
    )
    off = compared.filter((pl.col("stated") - pl.col("summed")).abs() > pl.col("tolerance"))
    columns = ["stated", "summed", "tolerance"]
    return broken(rules.MACRO_SUMS, "macro_categories", off, pl.col("share"), ["key"], columns)


def _model_sums(models: pl.DataFrame) -> pl.DataFrame:
    sums = _sums(models, ["as_of", "tag"], _MODEL_SHARES)
    off = sums.filter(pl.col("summed") > 1 + pl.col("tolerance"))
    return broken(rules.MODEL_SUMS, "task_models", off, pl.col("share"), ["tag"], ["summed", "tolerance"])


def _sums(rows: pl.DataFrame, by: list[str], shares: Sequence[str], *, stated: bool = False) -> pl.DataFrame:
    """Return one row per group and kind of share: `summed` (NULL if a share is), and the `tolerance` of that sum.

    `stated`: the sum should equal another published share, which is itself rounded, and not an exact number.
    """
    return pl.concat(
        rows.group_by(by, maintain_order=True).agg(
            share=pl.lit(share),
            summed=pl.when(pl.col(share).is_not_null().all()).then(pl.col(share).sum()),
            tolerance=HALF_STEP * (pl.len() + int(stated)) + FLOAT_SLACK,
        )
        for share in shares
    )


def _finite(frame: pl.DataFrame) -> pl.DataFrame:
    """Return the frame with NULL in place of shares that are not finite."""
    share = pl.col(pl.Float64)
    return frame.with_columns(pl.when(share.is_finite()).then(share))


def _category(share: str | pl.Expr) -> pl.Expr:
    """Return the name of the category share that belongs to a share's name."""
    return pl.format("category_{}", share)
