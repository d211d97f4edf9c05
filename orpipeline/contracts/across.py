"""The rules between tables and over a whole day: each as a small frame and the pandera model that judges it.

A row of such a frame is what a broken rule shows: what is stated, what it should agree with, how far off it may
be. A NULL share (refused elsewhere) makes the figures that need it NULL, and those rows are not judged twice.
"""

from __future__ import annotations

from collections.abc import Iterator

import pandera.polars as pa
import polars as pl

from orpipeline.contracts import rules
from orpipeline.contracts.rules import FLOAT_SLACK, HALF_STEP, Table, sum_tolerance
from orpipeline.contracts.tables import row_rule
from orpipeline.openrouter.client import WINDOW_DAYS
from orpipeline.openrouter.frames import Frames

MOST_TAGS = 1_000
MOST_MODELS = 20_000
DOCUMENTED_PREFIXES = ("code", "data", "agent")


class Answers(pa.DataFrameModel):
    """One row a day: what the answer says of itself."""

    as_of: pl.Date
    stated_as_of: pl.Date = pa.Field(nullable=True)
    window_days: pl.Int32 = pa.Field(nullable=True)
    classification_count: pl.Int32

    check_as_of = row_rule(rules.AS_OF, pl.col("stated_as_of").eq_missing(pl.col("as_of")))
    check_window = row_rule(rules.WINDOW, pl.col("window_days").eq_missing(WINDOW_DAYS))
    check_not_empty = row_rule(rules.NOT_EMPTY, pl.col("classification_count") > 0)


class Sizes(pa.DataFrameModel):
    """One row a day: how much the answer lists."""

    as_of: pl.Date
    tags: int
    models: int

    check_size = row_rule(rules.SIZE, (pl.col("tags") <= MOST_TAGS) & (pl.col("models") <= MOST_MODELS))


class Totals(pa.DataFrameModel):
    """One row a day and kind of share: its sum over all tags."""

    as_of: pl.Date
    share: str
    summed: float = pa.Field(nullable=True)
    tolerance: float

    check_total = row_rule(rules.TOTALS, (pl.col("summed") - 1).abs() <= pl.col("tolerance"))


class CategoryTotals(pa.DataFrameModel):
    """One row a day, macro-category and kind of share: its sum over the macro-category's tags."""

    as_of: pl.Date
    macro_category: str
    share: str
    summed: float = pa.Field(nullable=True)
    tolerance: float
    has_traffic: bool = pa.Field(nullable=True)

    # A macro-category without any traffic has no fractions to sum.
    check_total = row_rule(
        rules.CATEGORY_TOTALS,
        ((pl.col("summed") - 1).abs() <= pl.col("tolerance")) | (~pl.col("has_traffic") & (pl.col("summed") == 0)),
    )


class MacroSums(pa.DataFrameModel):
    """One row a day, macro-category and kind of share: as stated, and summed over its tags."""

    as_of: pl.Date
    key: str
    share: str
    stated: float = pa.Field(nullable=True)
    summed: float = pa.Field(nullable=True)
    tolerance: float

    check_sum = row_rule(rules.MACRO_SUMS, (pl.col("stated") - pl.col("summed")).abs() <= pl.col("tolerance"))


class TagGroups(pa.DataFrameModel):
    """One row a day and tag: its prefix and its macro-category."""

    as_of: pl.Date
    tag: str
    prefix: str = pa.Field(nullable=True)
    macro_category: str
    listed: bool

    check_listed = row_rule(rules.MACRO_LISTED, pl.col("listed"))
    # A prefix that is not documented yet may stand for a new macro-category of that name, or for `general`.
    check_prefix = row_rule(
        rules.MACRO_PREFIX,
        pl.when(pl.col("prefix").is_in(DOCUMENTED_PREFIXES))
        .then(pl.col("macro_category") == pl.col("prefix"))
        .when(pl.col("prefix").is_not_null())
        .then(pl.col("macro_category").is_in(["general"]) | (pl.col("macro_category") == pl.col("prefix")))
        .otherwise(~pl.col("macro_category").is_in(DOCUMENTED_PREFIXES)),
    )


class CategoryShares(pa.DataFrameModel):
    """One row a day, tag and kind of share: the category share as stated, and what it should multiply to."""

    as_of: pl.Date
    tag: str
    share: str
    category_share: float = pa.Field(nullable=True)
    macro_share: float = pa.Field(nullable=True)
    tag_share: float = pa.Field(nullable=True)
    tolerance: float = pa.Field(nullable=True)

    check_quotient = row_rule(
        rules.CATEGORY_SHARES,
        (pl.col("category_share") * pl.col("macro_share") - pl.col("tag_share")).abs() <= pl.col("tolerance"),
    )


class ModelSums(pa.DataFrameModel):
    """One row a day, tag and kind of share: the sum over the tag's listed models."""

    as_of: pl.Date
    tag: str
    share: str
    summed: float = pa.Field(nullable=True)
    tolerance: float

    check_sum = row_rule(rules.MODEL_SUMS, pl.col("summed") <= 1 + pl.col("tolerance"))


def judged_frames(frames: Frames) -> Iterator[tuple[Table, type[pa.DataFrameModel], pl.DataFrame]]:
    """Yield each frame that a rule between tables judges, with its model and the table that it speaks of."""
    tags, macros = frames.task_classifications.drop_nulls("tag"), _unique_macros(frames)
    grouped = tags.drop_nulls("macro_category")
    yield "raw_task_classifications", Answers, frames.answers
    yield "raw_task_classifications", Sizes, _sizes(frames)
    yield "task_classifications", Totals, _sums(tags, ["as_of"], _SHARES, stated=False)
    yield "task_classifications", CategoryTotals, _category_totals(grouped)
    yield "task_classifications", TagGroups, _tag_groups(grouped, macros)
    yield "task_classifications", CategoryShares, _category_shares(grouped, macros)
    yield "macro_categories", MacroSums, _macro_sums(grouped, macros)
    models = frames.task_models.drop_nulls("tag")
    yield "task_models", ModelSums, _sums(models, ["as_of", "tag"], _MODEL_SHARES, stated=False)


_SHARES = ("usage_share", "token_share")
_MODEL_SHARES = ("tag_usage_share", "tag_token_share")


def _sum(column: str) -> pl.Expr:
    share = pl.col(column)
    judgeable = share.is_not_null().all() & share.is_finite().all()
    return pl.when(judgeable).then(share.sum()).otherwise(None)


def _sums(rows: pl.DataFrame, by: list[str], shares: tuple[str, ...], *, stated: bool) -> pl.DataFrame:
    """Return one row for each group and kind of share: `summed`, and the `tolerance` of that sum."""
    return pl.concat(
        rows.group_by(by, maintain_order=True).agg(
            share=pl.lit(share),
            summed=_sum(share),
            tolerance=sum_tolerance(pl.len(), stated=stated),
        )
        for share in shares
    )


def _sizes(frames: Frames) -> pl.DataFrame:
    counts = frames.task_models.group_by("as_of").agg(models=pl.len().cast(pl.Int64))
    return (
        frames.answers.select("as_of", tags=pl.col("classification_count").cast(pl.Int64))
        .join(counts, on="as_of", how="left", maintain_order="left")
        .with_columns(pl.col("models").fill_null(0))
    )


def _unique_macros(frames: Frames) -> pl.DataFrame:
    # A macro-category that is listed twice breaks `keys_are_unique`; here it must not multiply rows.
    return frames.macro_categories.drop_nulls("key").unique(["as_of", "key"], keep="first", maintain_order=True)


def _category_totals(tags: pl.DataFrame) -> pl.DataFrame:
    by = ["as_of", "macro_category"]
    sums = _sums(tags, by, tuple(f"category_{share}" for share in _SHARES), stated=False)
    traffic = pl.concat(
        tags.group_by(by, maintain_order=True).agg(share=pl.lit(f"category_{share}"), has_traffic=_sum(share) > 0)
        for share in _SHARES
    )
    return sums.join(traffic, on=[*by, "share"], how="left", maintain_order="left")


def _tag_groups(tags: pl.DataFrame, macros: pl.DataFrame) -> pl.DataFrame:
    listed = macros.select("as_of", macro_category="key", listed=pl.lit(True))
    return tags.join(listed, on=["as_of", "macro_category"], how="left", maintain_order="left").select(
        "as_of",
        "tag",
        prefix=pl.when(pl.col("tag").str.contains(":", literal=True)).then(pl.col("tag").str.split(":").list.first()),
        macro_category="macro_category",
        listed=pl.col("listed").fill_null(False),
    )


def _category_shares(tags: pl.DataFrame, macros: pl.DataFrame) -> pl.DataFrame:
    stated = macros.select("as_of", "usage_share", "token_share", macro_category="key")
    rows = tags.join(stated, on=["as_of", "macro_category"], how="inner", suffix="_macro", maintain_order="left")
    category, macro = pl.col("category_share"), pl.col("macro_share")
    return pl.concat(
        rows.select(
            "as_of",
            "tag",
            share=pl.lit(f"category_{share}"),
            category_share=f"category_{share}",
            macro_share=f"{share}_macro",
            tag_share=share,
        )
        for share in _SHARES
    ).with_columns(
        tolerance=HALF_STEP * (1 + category + macro) + 3 * HALF_STEP**2 + FLOAT_SLACK,
    )


def _macro_sums(tags: pl.DataFrame, macros: pl.DataFrame) -> pl.DataFrame:
    sums = _sums(tags, ["as_of", "macro_category"], _SHARES, stated=True).rename({"macro_category": "key"})
    stated = pl.concat(macros.select("as_of", "key", share=pl.lit(s), stated=s) for s in _SHARES)
    # A listed macro-category without a tag states a sum over nothing.
    absent = pl.col("tolerance").is_null()
    return stated.join(sums, on=["as_of", "key", "share"], how="left", maintain_order="left").with_columns(
        summed=pl.when(absent).then(0.0).otherwise("summed"),
        tolerance=pl.when(absent).then(HALF_STEP + FLOAT_SLACK).otherwise("tolerance"),
    )
