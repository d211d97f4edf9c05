"""The tables: one pandera model each, with column names, types, descriptions, keys and the rules for each column.

Columns marked as key are the table's primary key. Every share is a fraction of 1, as OpenRouter publishes it (rounded
to 3 decimals), unless its description states otherwise. A model's `validate` checks columns, types, NULLs and every
rule that rejects a row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import pandera.polars as pa
import polars as pl

from orpipeline.contracts import rules
from orpipeline.contracts.rules import ALL, Rule

Instant = Annotated[pl.Datetime, "us", "UTC"]

# A part of a name (`part:part`, `part/part`) that is `other` or `others`, in any case and with any punctuation.
_OTHER = r"(?i)(^|[:/])[^a-z0-9:/]*others?[^a-z0-9:/]*($|[:/])"

# What a canonical name does not have: no text, or a space at an end; control, format, private and unassigned
# characters; line and paragraph separators; characters that are not drawn; any space but U+0020.
_NOT_CANONICAL = r"^ | $|^$|[\p{C}\p{Zl}\p{Zp}\p{Default_Ignorable_Code_Point}\x{2800}[\p{Zs}--\x20]]"
_LONGEST_NAME = 200  # characters


def _is_not_canonical(name: pl.Expr) -> pl.Expr:
    # Normalizing is slow, and a day has few names. Without the fixed order, two evaluations could differ.
    names = name.unique(maintain_order=True)
    broken = (
        names.str.contains(_NOT_CANONICAL)
        | (names.str.len_chars() > _LONGEST_NAME)
        | (names.str.normalize("NFC") != names)
    )
    return name.is_in(names.filter(broken).implode())


_ValueRule = tuple[Rule, Callable[[pl.Expr], pl.Expr]]
"""A rule for each value of a column, and the expression that is true for a value that breaks it."""

# NaN is larger than every number for polars, so it is outside.
_FRACTION: _ValueRule = (rules.SHARES, lambda share: ~share.is_between(0.0, 1.0))
_NOT_OTHER: _ValueRule = (rules.NO_OTHER, lambda name: name.str.contains(_OTHER))
_CANONICAL: _ValueRule = (rules.NAMES, _is_not_canonical)
_NOT_ALL: _ValueRule = (rules.NOT_ALL, lambda name: name.str.to_lowercase() == ALL)
_HAS_AUTHOR: _ValueRule = (rules.MODEL_AUTHORS, lambda model_id: ~model_id.str.contains("^[^/]+/."))


@dataclass(frozen=True)
class RowRule:
    """A rule as one table applies it: `broken` is true for each row that breaks it, NULL for a row it does not cover.

    Findings name `column`, and show its value or, with `shows_row`, the whole row.
    """

    rule: Rule
    column: str
    broken: pl.Expr
    shows_row: bool = False


def _column(
    description: str,
    *value_rules: _ValueRule,
    key: bool = False,
    missing: Rule | None = rules.REQUIRED_FIELDS,
) -> Any:
    """Return a pandera field that may not be NULL; a NULL breaks the rule `missing`."""
    return pa.Field(description=description, metadata={"key": key, "missing": missing, "values": value_rules})


def _key(description: str, *value_rules: _ValueRule) -> Any:
    return _column(description, *value_rules, key=True)


def _share(description: str) -> Any:
    return _column(description, _FRACTION, missing=rules.SHARES)


def _optional(description: str) -> Any:
    return pa.Field(description=description, nullable=True, metadata={"key": False, "missing": None, "values": ()})


class DayTable(pa.DataFrameModel):
    """The columns of every table."""

    as_of: pl.Date = _key("The snapshot's day (UTC): the last day of its window, and the partition.")
    # An answer without it breaks `window_is_7_days`, once and not in every row.
    window_days: pl.Int32 = _column(
        "The number of days that the figures cover, up to and including `as_of`.", key=True, missing=None
    )

    class Config:
        strict = True  # a missing or an extra column is an error

    @classmethod
    def to_schema(cls) -> pa.DataFrameSchema:
        """Return pandera's schema, with one check for each rule that rejects a row."""
        schema = super().to_schema()
        if not schema.checks:  # pandera caches the schema
            declared = [rule for rule in cls.row_rules(schema.columns) if rule.rule.severity == "ERROR"]
            by_rule = {rule.rule.name: [other for other in declared if other.rule == rule.rule] for rule in declared}
            schema.checks = [_check(of_rule) for of_rule in by_rule.values()]
        return schema

    @classmethod
    def primary_key(cls) -> list[str]:
        """Return the names of the primary key's columns."""
        return _key_of(cls.columns())

    @classmethod
    def summary(cls) -> str:
        """Return one sentence that describes the table."""
        return str(cls.to_schema().description)

    @classmethod
    def columns(cls) -> dict[str, Any]:
        """Return pandera's columns (`dtype`, `nullable`, `description`) by name, in the table's order."""
        return dict(cls.to_schema().columns)

    @classmethod
    def polars_schema(cls) -> dict[str, pl.DataType]:
        """Return each column's polars type by name, in the table's order."""
        return {name: column.dtype.type for name, column in cls.columns().items()}

    @classmethod
    def row_rules(cls, columns: Mapping[str, Any] | None = None) -> list[RowRule]:
        """Return the rules that its rows must follow: each column's first, then that keys are unique.

        `columns` are pandera's, by default the model's own.
        """
        columns = cls.columns() if columns is None else columns
        declared: list[RowRule] = []
        for name, column in columns.items():
            if column.metadata["missing"] is not None:
                declared.append(RowRule(column.metadata["missing"], name, pl.col(name).is_null()))
            values: Sequence[_ValueRule] = column.metadata["values"]
            declared += [RowRule(rule, name, broken(pl.col(name))) for rule, broken in values]
        key = _key_of(columns)
        has_null = pl.any_horizontal(pl.col(name).is_null() for name in key if name != "window_days")
        return [*declared, RowRule(rules.UNIQUE, key[-1], ~pl.struct(key).is_unique() & ~has_null, shows_row=True)]


def _key_of(columns: Mapping[str, Any]) -> list[str]:
    return [name for name, column in columns.items() if column.metadata["key"]]


def _check(declared: Sequence[RowRule]) -> pa.Check:
    """Return a pandera check that fails for each row that breaks a rule in any of the columns that declare it."""
    rule, broken = declared[0].rule, pl.any_horizontal(one.broken.fill_null(False) for one in declared)

    def holds(data: pa.PolarsData) -> pl.LazyFrame:
        return data.lazyframe.select(~broken)

    return pa.Check(holds, name=rule.name, description=rule.description)


class Snapshots(DayTable):
    """The table `snapshots`.

    >>> import orpipeline
    >>> rows = orpipeline.Snapshots.validate(orpipeline.read("snapshots"))
    >>> rows["revision"].max()
    1
    """

    class Config:
        description = "One row per day: the answer that the day's figures come from, with its sha256."

    revision: pl.Int32 = _column("1 for the first answer archived for that day, then 2, 3 and so on.")
    sha256: str = _column("The sha256 of the answer's bytes, in hex, as recorded in the archive.")
    bytes: pl.Int64 = _column("The answer's length in bytes.")
    fetched_at: Instant = _column(
        "When the answer was fetched. For an imported answer without a fetch time: when it was imported."
    )
    origin: str = _column("`api`, `import` (a snapshot from a file), or `demo` (made-up figures).")
    source: str = _column("The URL that the answer was fetched from, or the file that it was imported from.")
    classification_count: pl.Int32 = _column("The number of tags in the answer.")
    citation: str = _column("How to cite the day's figures.")


class TaskClassifications(DayTable):
    """The table `task_classifications`.

    >>> import orpipeline
    >>> tasks = orpipeline.TaskClassifications.validate(orpipeline.read("task_classifications"))
    >>> tasks.filter(usage_rank=1).select("as_of", "display_name").height >= 3
    True
    """

    class Config:
        description = "One row per day and tag: each task's share of requests and of tokens."

    tag: str = _key("The task's name in the API, such as `code:debugging`.", _NOT_OTHER, _CANONICAL)
    display_name: str = _column("The task's display name.", _NOT_OTHER, _CANONICAL)
    macro_category: str = _column(
        "The tag's group, by its prefix: `code`, `data` or `agent`, otherwise `general`.",
        _NOT_OTHER,
        _NOT_ALL,
        _CANONICAL,
    )
    usage_share: float = _share("The tag's share of all classified requests.")
    token_share: float = _share("The tag's share of all classified tokens.")
    category_usage_share: float = _share("The tag's share of its macro-category's requests.")
    category_token_share: float = _share("The tag's share of its macro-category's tokens.")
    usage_rank: pl.Int32 = _column("1 for the day's largest usage_share. Ties get the same rank, as in 1, 1, 3.")
    token_rank: pl.Int32 = _column("1 for the day's largest token_share. Ties get the same rank, as in 1, 1, 3.")


class MacroCategories(DayTable):
    """The table `macro_categories`.

    >>> import orpipeline
    >>> orpipeline.MacroCategories.primary_key()
    ['as_of', 'window_days', 'key']
    """

    class Config:
        description = "One row per day and macro-category: each group of tasks' share of requests and of tokens."

    key: str = _key("The macro-category's name in the API, such as `code`.", _NOT_OTHER, _NOT_ALL, _CANONICAL)
    label: str = _column("The macro-category's display name.", _NOT_OTHER, _CANONICAL)
    usage_share: float = _share("The macro-category's share of all classified requests.")
    token_share: float = _share("The macro-category's share of all classified tokens.")


class TaskModels(DayTable):
    """The table `task_models`.

    >>> import orpipeline
    >>> import polars as pl
    >>> no_models = pl.DataFrame(schema=orpipeline.TaskModels.polars_schema())
    >>> orpipeline.TaskModels.validate(no_models).height
    0
    """

    class Config:
        description = "One row per day, tag and listed model: each task's top models by requests."

    tag: str = _key("The task's name in the API.", _CANONICAL)
    model_id: str = _key("The model, as `author/model` or `author/model:variant`.", _NOT_OTHER, _CANONICAL, _HAS_AUTHOR)
    position: pl.Int32 = _column("The model's place in the tag's list, from 1.")
    tag_usage_share: float = _share("The model's share of the tag's requests.")
    tag_token_share: float = _share("The model's share of the tag's tokens.")


_RANK_BEST = (
    "The best possible rank by {0} among the scope's listed {1}: 1 + the number of {1} that certainly have more, "
    "whatever the unlisted and unrounded figures are."
)
_RANK_WORST = (
    "The worst possible rank by {0} among the scope's listed {1}: 1 + the number of other {1} that could have more, "
    "given the unlisted and unrounded figures."
)


class _RankedModels(DayTable):
    """The columns of everything with one row per day, scope and model."""

    scope: str = _key(f"`{ALL}` for all classified traffic, or a macro-category's key.")
    model_id: str = _key("The model, as `author/model` or `author/model:variant`.")


class ModelLeaderboard(_RankedModels):
    """The table `model_leaderboard`.

    >>> import orpipeline
    >>> from pandera.typing.polars import DataFrame
    >>> def certain(rows: DataFrame[orpipeline.ModelLeaderboard]) -> int:
    ...     return rows.filter(rows["usage_rank_best"] == rows["usage_rank_worst"]).height
    >>> certain(orpipeline.ModelLeaderboard.validate(orpipeline.read("model_leaderboard"))) > 0
    True
    """

    class Config:
        description = "One row per day, scope and model: market share and rank, with their bounds."

    author: str = _optional("The part of the model id before the `/`; NULL if there is no `/`.")
    model: str = _column("The part of the model id between `/` and `:`.")
    variant: str = _optional("The part of the model id after the `:`, such as `free`; NULL if there is no `:`.")
    usage_rank: pl.Int32 = _column("1 for the scope's largest usage_share. Ties get the same rank, as in 1, 1, 3.")
    token_rank: pl.Int32 = _column("1 for the scope's largest token_share. Ties get the same rank, as in 1, 1, 3.")
    usage_share: float = _column(
        "The share of the scope's requests that the published lists attribute to the model. A lower bound, because "
        "only the top models are listed. Rounded to 12 decimals."
    )
    token_share: float = _column(
        "The share of the scope's tokens that the published lists attribute to the model. A lower bound. Rounded to "
        "12 decimals."
    )
    usage_share_upper: float = _column(
        "The largest share of requests that the published lists allow for the model, as a sum of published figures: "
        "their rounding can move it by about 0.002."
    )
    token_share_upper: float = _column(
        "The largest share of tokens that the published lists allow for the model, as a sum of published figures: "
        "their rounding can move it by about 0.01."
    )
    usage_rank_best: pl.Int32 = _column(_RANK_BEST.format("requests", "models"))
    usage_rank_worst: pl.Int32 = _column(_RANK_WORST.format("requests", "models"))
    token_rank_best: pl.Int32 = _column(_RANK_BEST.format("tokens", "models"))
    token_rank_worst: pl.Int32 = _column(_RANK_WORST.format("tokens", "models"))
    task_count: pl.Int32 = _column("The number of the scope's tags that list the model.")
    top_task: str = _column("The tag that contributes most to the model's usage_share.")

    @classmethod
    def row_rules(cls, columns: Mapping[str, Any] | None = None) -> list[RowRule]:
        """Return the rules of every table, and that shares and ranks are within their bounds."""
        shares = ("usage_share", "token_share", "usage_share_upper", "token_share_upper")
        holds = (
            pl.all_horizontal(pl.col(*shares).is_finite())
            & (pl.min_horizontal("usage_share", "token_share") >= 0)
            & (pl.col("usage_share") <= pl.col("usage_share_upper"))
            & (pl.col("token_share") <= pl.col("token_share_upper"))
            & (pl.col("usage_rank_best") <= pl.col("usage_rank"))
            & (pl.col("usage_rank") <= pl.col("usage_rank_worst"))
            & (pl.col("token_rank_best") <= pl.col("token_rank"))
            & (pl.col("token_rank") <= pl.col("token_rank_worst"))
        )
        return [*super().row_rules(columns), RowRule(rules.BOUNDS, "model_id", ~holds, shows_row=True)]


TABLES: dict[str, type[DayTable]] = {
    "snapshots": Snapshots,
    "task_classifications": TaskClassifications,
    "macro_categories": MacroCategories,
    "task_models": TaskModels,
    "model_leaderboard": ModelLeaderboard,
}
"""Every table of the schema `openrouter`, by name."""

_NULL_BEFORE = "NULL if that day is missing or does not list the model"


class ModelTrends(_RankedModels):
    """The view `model_trends`.

    >>> import orpipeline
    >>> orpipeline.ModelTrends.columns()["first_seen"].description
    'The first day that lists the model in the scope.'
    """

    class Config:
        description = "One row per day, scope and model: the leaderboard's changes, computed when you read them."

    usage_rank: pl.Int32 = _column("The model's rank on the day, as in `model_leaderboard`.")
    usage_share: float = _column("The share attributed to the model, as in `model_leaderboard`.")
    usage_rank_1d: pl.Int32 = _optional(f"The usage_rank 1 day before; {_NULL_BEFORE}.")
    usage_rank_7d: pl.Int32 = _optional(f"The usage_rank 7 days before; {_NULL_BEFORE}.")
    usage_share_change_1d: float = _optional(
        f"usage_share minus the usage_share 1 day before, as a fraction of 1; {_NULL_BEFORE}."
    )
    usage_share_change_7d: float = _optional(
        f"usage_share minus the usage_share 7 days before, as a fraction of 1; {_NULL_BEFORE}. The two windows do not "
        "overlap."
    )
    first_seen: pl.Date = _column("The first day that lists the model in the scope.")
    days_listed: pl.Int32 = _column(
        "The number of days, up to and including this one, that list the model in the scope."
    )


class LeaderboardCoverage(DayTable):
    """The view `leaderboard_coverage`.

    The scopes are `all` and the macro-categories of the day's tags. A scope has a row even if its lists are empty.

        >>> import orpipeline
        >>> coverage = orpipeline.LeaderboardCoverage.validate(orpipeline.read("leaderboard_coverage", scope="all"))
        >>> coverage["unlisted_usage_upper"].max() < 1
        True
    """

    class Config:
        description = "One row per day and scope: how much the lists tell, and what they leave open."

    scope: str = _key(f"`{ALL}` for all classified traffic, or a macro-category's key.")
    model_count: pl.Int32 = _column("The number of models that the scope's lists name.")
    usage_attributed: float = _column("The share of the scope's requests that the lists attribute to models.")
    token_attributed: float = _column("The share of the scope's tokens that the lists attribute to models.")
    unlisted_usage_upper: float = _column(
        "The largest share of requests that a model on none of the scope's lists can have, as a sum of published "
        "figures."
    )
    unlisted_token_upper: float = _column(
        "The largest share of tokens that a model on none of the scope's lists can have, as a sum of published figures."
    )
    usage_models_above_unlisted: pl.Int32 = _column(
        "The number of models that certainly have more requests than any model on none of the scope's lists. Their "
        "possible ranks hold against every model; the others' are among listed models only."
    )
    token_models_above_unlisted: pl.Int32 = _column(
        "The number of models that certainly have more tokens than any model on none of the scope's lists."
    )


class AuthorLeaderboard(DayTable):
    """The view `author_leaderboard`.

        >>> import orpipeline
        >>> authors = orpipeline.AuthorLeaderboard.validate(orpipeline.read("author_leaderboard", scope="code"))
        >>> authors["usage_rank"].min()
        1

    A model id that names no author (`author` is NULL or empty in `model_leaderboard`) is in no row. Its share could
    belong to any author, so it counts as open: it is part of every author's upper bound.

    Under a tag with share w, an author has at least the listed shares of its models, and at most what the other
    authors' listed models leave: it can have any number of unlisted models, so the smallest listed share is not a cap.
    With `own` and `others` as sums of listed shares s, `usage_share_upper` is the sum of w x max(own, 1 - others) over
    the scope's tags. Possible ranks allow for the rounding h of each published share, as those of models do: low is the
    sum of (w - h) x the author's sum of (s - h), no factor below 0, and up is the sum of
    (w + h) x max(own, 1 - the other authors' sum of (s - h)). Then low <= usage_share <= usage_share_upper <= up, and
    best rank <= rank <= worst rank. Tokens likewise.
    """

    class Config:
        description = "One row per day, scope and author: the shares of all its listed models, and its rank."

    scope: str = _key(f"`{ALL}` for all classified traffic, or a macro-category's key.")
    author: str = _key("The part of its models' ids before the `/`. Models without an author are in no row.")
    usage_share: float = _column(
        "The sum of usage_share over the author's models in `model_leaderboard`: a lower bound, because only the top "
        "models are listed."
    )
    token_share: float = _column("The sum of token_share over the author's models in `model_leaderboard`.")
    usage_rank: pl.Int32 = _column("1 for the scope's largest usage_share. Ties get the same rank, as in 1, 1, 3.")
    token_rank: pl.Int32 = _column("1 for the scope's largest token_share. Ties get the same rank, as in 1, 1, 3.")
    model_count: pl.Int32 = _column("The number of the author's models that the scope's lists name.")
    top_model: str = _column("The author's model with the largest usage_share.")
    usage_share_upper: float = _column(
        "The largest share of requests that the published lists allow for all of the author's models, listed or not, "
        "as a sum of published figures."
    )
    token_share_upper: float = _column("The same for tokens.")
    usage_rank_best: pl.Int32 = _column(_RANK_BEST.format("requests", "authors"))
    usage_rank_worst: pl.Int32 = _column(_RANK_WORST.format("requests", "authors"))
    token_rank_best: pl.Int32 = _column(_RANK_BEST.format("tokens", "authors"))
    token_rank_worst: pl.Int32 = _column(_RANK_WORST.format("tokens", "authors"))


class LatestLeaderboard(ModelLeaderboard):
    """The view `latest_leaderboard`.

    >>> import orpipeline
    >>> latest = orpipeline.LatestLeaderboard.validate(orpipeline.read("latest_leaderboard"))
    >>> latest["scope"].unique().to_list()
    ['all']
    """

    class Config:
        description = "One row per model: the leaderboard of all classified traffic on the newest day."


VIEWS: dict[str, type[DayTable]] = {
    "model_trends": ModelTrends,
    "author_leaderboard": AuthorLeaderboard,
    "leaderboard_coverage": LeaderboardCoverage,
    "latest_leaderboard": LatestLeaderboard,
}
"""Every view of the schema `openrouter`, by name. You read them like tables."""
RELATIONS: dict[str, type[DayTable]] = {**TABLES, **VIEWS}
"""Tables and views, by name."""
EXPORTED: dict[str, type[DayTable]] = {name: model for name, model in RELATIONS.items() if name != "latest_leaderboard"}
"""The tables and views that are also Parquet files: all but the one that repeats the newest day."""
