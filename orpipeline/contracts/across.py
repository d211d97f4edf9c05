"""The rules within one answer that cross rows and tables: totals, sums, quotients, order.

Each function returns the findings of its rules. A share that is NULL or not finite is a finding of its own column; the
figures that need it are NULL here, and a NULL comparison is not a finding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import polars as pl

from orpipeline.contracts import rules
from orpipeline.contracts.findings import finding_frame, shown, shown_names, shown_values
from orpipeline.contracts.rules import ALL, FLOAT_SLACK, HALF_STEP, Rule, sum_tolerance
from orpipeline.openrouter.client import WINDOW_DAYS
from orpipeline.openrouter.frames import Frames

DOCUMENTED_PREFIXES = ("code", "data", "agent")

_SHARES = ("usage_share", "token_share")
_CATEGORY_SHARES = ("category_usage_share", "category_token_share")
_MODEL_SHARES = ("tag_usage_share", "tag_token_share")


def findings(frames: Frames) -> Iterator[pl.DataFrame]:
    """Yield the findings of every rule that crosses rows or tables."""
    yield from _answer(frames)
    yield _size(frames)
    yield from _order(frames)
    yield from _spelling(frames)
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


def _answer(frames: Frames) -> Iterator[pl.DataFrame]:
    """Yield findings on what an answer states about itself; a value of the wrong type is shown as it was."""
    answers = frames.answers.with_row_index("index")
    for rule, column, holds in (
        (rules.AS_OF, "stated_as_of", pl.col("stated_as_of").eq_missing(pl.col("as_of"))),
        (rules.WINDOW, "window_days", pl.col("window_days").eq_missing(WINDOW_DAYS)),
        (rules.NOT_EMPTY, "classification_count", pl.col("classification_count") > 0),
    ):
        yield finding_frame(
            rule,
            "raw_task_classifications",
            (
                (
                    row["as_of"],
                    column,
                    str(row["as_of"]),
                    frames.originals.get(("answers", column, row["index"]), shown(row[column])),
                )
                for row in answers.filter(~holds).iter_rows(named=True)
            ),
        )


def _size(frames: Frames) -> pl.DataFrame:
    return finding_frame(
        rules.SIZE,
        "raw_task_classifications",
        (
            (day, "classifications", str(day), f"tags={tags}, models={models}, macro_categories={macros}")
            for day, (tags, models, macros) in frames.oversized.items()
        ),
    )


def _order(frames: Frames) -> Iterator[pl.DataFrame]:
    tags = frames.task_classifications.with_columns(before=pl.col("usage_share").shift(1).over("as_of"))
    yield _broken(
        rules.ORDER,
        "task_classifications",
        tags.filter(pl.col("usage_share") > pl.col("before")),
        "usage_share",
        ["tag"],
        ["before", "usage_share"],
    )
    models = frames.task_models.with_columns(before=pl.col("tag_usage_share").shift(1).over("as_of", "tag"))
    yield _broken(
        rules.ORDER,
        "task_models",
        models.filter(pl.col("tag_usage_share") > pl.col("before")),
        "tag_usage_share",
        ["tag", "model_id"],
        ["before", "tag_usage_share"],
    )


def _spelling(frames: Frames) -> Iterator[pl.DataFrame]:
    tags, macros = frames.task_classifications, frames.macro_categories
    keys = [macros.select("as_of", name="key"), tags.select("as_of", name="macro_category")]
    for table, column, names in (
        ("task_classifications", "tag", tags.select("as_of", name="tag")),
        ("macro_categories", "key", pl.concat(keys)),
        ("task_models", "model_id", frames.task_models.select("as_of", name="model_id")),
    ):
        spellings = (
            names.drop_nulls()
            .unique(maintain_order=True)
            # Some letters differ in one case only: both `ss` and the German sharp s are `SS`.
            .group_by("as_of", name=pl.col("name").str.to_lowercase().str.to_uppercase(), maintain_order=True)
            .agg(spellings="name")
            .filter(pl.col("spellings").list.len() > 1)
        )
        yield finding_frame(
            rules.SPELLING,
            table,
            ((day, column, found[0], shown_names(found)) for day, _, found in spellings.iter_rows()),
        )


def _totals(tags: pl.DataFrame) -> pl.DataFrame:
    sums = _sums(tags, ["as_of"], _SHARES, stated=False)
    return _broken(
        rules.TOTALS,
        "task_classifications",
        sums.filter((pl.col("summed") - 1).abs() > pl.col("tolerance")),
        pl.col("share"),
        ["as_of"],
        ["summed", "tolerance"],
    )


def _category_totals(tags: pl.DataFrame) -> pl.DataFrame:
    by = ["as_of", "macro_category"]
    traffic = _sums(tags, by, _SHARES, stated=False).select(*by, share=_category("share"), traffic="summed")
    sums = _sums(tags, by, _CATEGORY_SHARES, stated=False).join(
        traffic, on=[*by, "share"], how="left", maintain_order="left"
    )
    # A macro-category without any traffic has no fractions to sum.
    is_empty = (pl.col("traffic") == 0) & (pl.col("summed") == 0)
    return _broken(
        rules.CATEGORY_TOTALS,
        "task_classifications",
        sums.filter(((pl.col("summed") - 1).abs() > pl.col("tolerance")) & ~is_empty.fill_null(False)),
        pl.col("share"),
        ["macro_category"],
        ["summed", "tolerance"],
    )


def _tag_groups(tags: pl.DataFrame, macros: pl.DataFrame) -> Iterator[pl.DataFrame]:
    listed = macros.select("as_of", macro_category="key")
    unlisted = tags.join(listed, on=["as_of", "macro_category"], how="anti", maintain_order="left")
    yield _broken(rules.MACRO_LISTED, "task_classifications", unlisted, "macro_category", ["tag"], ["macro_category"])
    macro, prefix = pl.col("macro_category"), pl.col("prefix")
    prefixed = tags.with_columns(prefix=pl.col("tag").str.extract(r"(?s)^([^:]*):"))
    # A prefix that is not documented may belong to a new macro-category of that name, or to `general`.
    follows = (
        pl.when(prefix.is_in(DOCUMENTED_PREFIXES))
        .then(macro == prefix)
        .when(prefix.is_not_null())
        .then((macro == "general") | (macro == prefix))
        .otherwise(~macro.is_in(DOCUMENTED_PREFIXES))
    )
    yield _broken(
        rules.MACRO_PREFIX,
        "task_classifications",
        prefixed.filter(~follows),
        "macro_category",
        ["tag"],
        ["prefix", "macro_category"],
    )


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
    return _broken(
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
    return _broken(
        rules.MACRO_SUMS,
        "macro_categories",
        compared.filter((pl.col("stated") - pl.col("summed")).abs() > pl.col("tolerance")),
        pl.col("share"),
        ["key"],
        ["stated", "summed", "tolerance"],
    )


def _model_sums(models: pl.DataFrame) -> pl.DataFrame:
    sums = _sums(models, ["as_of", "tag"], _MODEL_SHARES, stated=False)
    return _broken(
        rules.MODEL_SUMS,
        "task_models",
        sums.filter(pl.col("summed") > 1 + pl.col("tolerance")),
        pl.col("share"),
        ["tag"],
        ["summed", "tolerance"],
    )


def scope_sums(board: pl.DataFrame, tags: pl.DataFrame, models: pl.DataFrame) -> pl.DataFrame:
    """Return one finding per day, scope and kind of share whose sum over the leaderboard's models is above 1.

    Takes the columns of `model_leaderboard`, `task_classifications` and `task_models`. True shares sum to at most 1.
    The limit follows from the published rounding, h = `HALF_STEP`. Let T be the number of the scope's tags, S(t) a
    tag's share of the scope, n the largest number of models that one of the tags lists, and s(t, m) a model's share of
    the tag. S(t) is at most h above the true share, so S sums to at most 1 + T x h; likewise, s sums to at most
    1 + n x h under each tag. The sum over the models is the sum over the tags of S(t) x (the sum of s under t), so it
    is at most (1 + T x h) x (1 + n x h).
    """
    day = ["as_of", "window_days"]
    listed = tags.select(*day, "tag", "macro_category").join(
        models.group_by(*day, "tag").agg(listed=pl.len()), on=[*day, "tag"], how="left"
    )
    sizes = (
        pl.concat(
            listed.select(*day, "tag", "listed", scope=scope) for scope in (pl.lit(ALL), pl.col("macro_category"))
        )
        .group_by(*day, "scope")
        .agg(pl.col("tag").n_unique(), pl.col("listed").max())
    )
    sums = board.group_by(*day, "scope", maintain_order=True).agg(pl.col(_SHARES).sum())
    tag_count, model_count = pl.col("tag").fill_null(0), pl.col("listed").fill_null(0)
    limit = (1 + sum_tolerance(tag_count, stated=False)) * (1 + sum_tolerance(model_count, stated=False)) + FLOAT_SLACK
    limited = sums.join(sizes, on=[*day, "scope"], how="left", maintain_order="left").with_columns(limit=limit)
    by_share = pl.concat(
        limited.select("as_of", "scope", "limit", share=pl.lit(share), summed=share) for share in _SHARES
    )
    return _broken(
        rules.SCOPE_SUMS,
        "model_leaderboard",
        by_share.filter(pl.col("summed") > pl.col("limit")),  # NaN is above every number for polars
        pl.col("share"),
        ["as_of", "scope"],
        ["summed", "limit"],
    )


def _broken(
    rule: Rule,
    table: str,
    rows: pl.DataFrame,
    column: str | pl.Expr,
    key: Sequence[str],
    values: Sequence[str],
) -> pl.DataFrame:
    """Return one finding per row: in `column` (or the column that it names), with the row's key and some values."""
    named = rows.with_columns(column=pl.lit(column) if isinstance(column, str) else column)
    return finding_frame(
        rule,
        table,
        (
            (row["as_of"], row["column"], " / ".join(str(row[name]) for name in key), shown_values(row, values))
            for row in named.iter_rows(named=True)
        ),
    )


def _finite(frame: pl.DataFrame) -> pl.DataFrame:
    """Return the frame with NULL in place of shares that are not finite."""
    share = pl.col(pl.Float64)
    return frame.with_columns(pl.when(share.is_finite()).then(share))


def _category(share: str | pl.Expr) -> pl.Expr:
    """Return the name of the category share that belongs to a share's name."""
    return pl.format("category_{}", share)


def _sums(rows: pl.DataFrame, by: list[str], shares: Sequence[str], *, stated: bool) -> pl.DataFrame:
    """Return one row per group and kind of share: `summed` (NULL if a share is), and the `tolerance` of that sum."""
    return pl.concat(
        rows.group_by(by, maintain_order=True).agg(
            share=pl.lit(share),
            summed=pl.when(pl.col(share).is_not_null().all()).then(pl.col(share).sum()),
            tolerance=sum_tolerance(pl.len(), stated=stated),
        )
        for share in shares
    )
