"""The tables: one pandera model each. The only place that knows column names, types, meanings and keys.

The columns marked as key are the table's primary key. Every share is a fraction of 1, as
published by OpenRouter and rounded to 3 decimals by it, unless its description says otherwise.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import pandera.polars as pa
import polars as pl
from pandera.api.polars.types import PolarsData

from orpipeline.contracts import rules
from orpipeline.contracts.rules import Rule

Instant = Annotated[pl.Datetime, "us", "UTC"]

# Any part of a name (`part:part`, `part/part`) that is `other`, whatever its case and the punctuation on it.
_OTHER = r"(?i)(^|[:/])[^a-z0-9:/]*others?[^a-z0-9:/]*($|[:/])"


_KEY = {"key": True}


def _key(description: str) -> Any:
    return pa.Field(description=description, metadata=_KEY)


def _column_rule(rule: Rule, columns: tuple[str, ...], holds: Callable[[pl.Expr], pl.Expr]) -> Any:
    """Return a pandera check of each of `columns`; a NULL is `required_fields`' matter."""

    def check(_model: type, data: PolarsData) -> pl.LazyFrame:
        return data.lazyframe.select(holds(pl.col(data.key)).fill_null(True))

    return pa.check(*columns, name=rule.name, description=rule.description)(check)


def row_rule(rule: Rule, holds: pl.Expr) -> Any:
    """Return a pandera check of whole rows; a row with a NULL in it is `required_fields`' matter."""

    def check(_model: type, data: PolarsData) -> pl.LazyFrame:
        return data.lazyframe.select(holds.fill_null(True))

    return pa.dataframe_check(name=rule.name, description=rule.description)(check)


def _shares(*columns: str) -> Any:
    # NaN is above every number for polars, and so outside.
    return _column_rule(rules.SHARES, columns, lambda share: share.is_between(0.0, 1.0))


def _not_other(*columns: str) -> Any:
    return _column_rule(rules.NO_OTHER, columns, lambda name: ~name.str.contains(_OTHER))


def _unique(*columns: str) -> Any:
    named = ~pl.any_horizontal(pl.col(*columns).is_null())
    return row_rule(rules.UNIQUE, pl.struct("as_of", *columns).is_unique() | ~named)


class DayTable(pa.DataFrameModel):
    """What every table has."""

    as_of: pl.Date = _key("The day (UTC) that the figures run up to: the window's last, and the partition.")
    window_days: pl.Int32 = _key("How many days the figures cover, `as_of` being the last.")

    class Config:
        strict = True  # columns are matched by name; one too many or too few is an error

    @classmethod
    def primary_key(cls) -> list[str]:
        """Return the names of the primary key's columns."""
        return [name for name, column in cls.columns().items() if column.metadata == _KEY]

    @classmethod
    def summary(cls) -> str:
        """Return what the table is, in a sentence."""
        return str(cls.to_schema().description)

    @classmethod
    def columns(cls) -> dict[str, Any]:
        """Return pandera's columns (`dtype`, `nullable`, `description`) by name, in the table's order."""
        return dict(cls.to_schema().columns)

    @classmethod
    def polars_schema(cls) -> dict[str, pl.DataType]:
        """Return each column's polars type by name, in the table's order."""
        return {name: column.dtype.type for name, column in cls.columns().items()}


class Snapshots(DayTable):
    """The table `snapshots`."""

    class Config:
        description = "One row a day: the answer that the day's figures come from, with its sha256."

    revision: pl.Int32 = pa.Field(
        description="1 for the first answer that came into the archive for that day, the next number for each other."
    )
    sha256: str = pa.Field(description="The sha256 of the answer's bytes, in hex, as in the raw archive's record.")
    bytes: pl.Int64 = pa.Field(description="The answer's length in bytes.")
    fetched_at: Instant = pa.Field(
        description="When the answer was fetched; for an imported one that does not say, when it was imported."
    )
    origin: str = pa.Field(
        description="How it came: `api`, `import` (a snapshot that somebody else kept), or `demo` (made up)."
    )
    source: str = pa.Field(description="The URL that was asked, or the name of the file that was imported.")
    classification_count: pl.Int32 = pa.Field(description="How many tags the answer lists.")
    citation: str = pa.Field(description="How to cite the day's figures.")


class TaskClassifications(DayTable):
    """The table `task_classifications`."""

    class Config:
        description = "One row a day and tag: the share of requests and of tokens that goes to each task."

    tag: str = _key("The task's name in the API, such as `code:debugging`.")
    display_name: str = pa.Field(description="The task's name for people.")
    macro_category: str = pa.Field(
        description="The group that the tag's prefix names: `code`, `data`, `agent`, else `general`."
    )
    usage_share: float = pa.Field(description="The tag's share of all classified requests.")
    token_share: float = pa.Field(description="The tag's share of all classified tokens.")
    category_usage_share: float = pa.Field(description="The tag's share of its macro-category's requests.")
    category_token_share: float = pa.Field(description="The tag's share of its macro-category's tokens.")
    usage_rank: pl.Int32 = pa.Field(description="1 for the day's largest usage_share; ties share the smaller number.")
    token_rank: pl.Int32 = pa.Field(description="1 for the day's largest token_share; ties share the smaller number.")

    check_shares = _shares("usage_share", "token_share", "category_usage_share", "category_token_share")
    check_no_other = _not_other("tag", "display_name", "macro_category")
    check_unique = _unique("tag")


class MacroCategories(DayTable):
    """The table `macro_categories`."""

    class Config:
        description = "One row a day and macro-category: the share of requests and of tokens of a group of tasks."

    key: str = _key("The macro-category's name in the API, such as `code`.")
    label: str = pa.Field(description="The macro-category's name for people.")
    usage_share: float = pa.Field(description="The macro-category's share of all classified requests.")
    token_share: float = pa.Field(description="The macro-category's share of all classified tokens.")

    check_shares = _shares("usage_share", "token_share")
    check_no_other = _not_other("key", "label")
    check_unique = _unique("key")


class TaskModels(DayTable):
    """The table `task_models`."""

    class Config:
        description = "One row a day, tag and listed model: the top models of each task by requests."

    tag: str = _key("The task's name in the API.")
    model_id: str = _key("The model, as `author/model` or `author/model:variant`.")
    position: pl.Int32 = pa.Field(description="The model's place in the tag's list, from 1.")
    tag_usage_share: float = pa.Field(description="The model's share of the tag's requests.")
    tag_token_share: float = pa.Field(description="The model's share of the tag's tokens.")

    check_shares = _shares("tag_usage_share", "tag_token_share")
    check_no_other = _not_other("model_id")
    check_unique = _unique("tag", "model_id")


class _RankedModels(DayTable):
    """What has a row a day, scope and model."""

    scope: str = _key("`all` for all classified traffic, or the key of the macro-category that is ranked.")
    model_id: str = _key("The model, as `author/model` or `author/model:variant`.")


class ModelLeaderboard(_RankedModels):
    """The table `model_leaderboard`."""

    class Config:
        description = "One row a day, scope and model: market share and rank, with what the lists leave open."

    author: str = pa.Field(description="The part of the model id before the `/`; NULL without one.", nullable=True)
    model: str = pa.Field(description="The part of the model id between `/` and `:`.")
    variant: str = pa.Field(
        description="The part of the model id after the `:`, such as `free`; NULL without one.",
        nullable=True,
    )
    usage_rank: pl.Int32 = pa.Field(description="1 for the scope's largest usage_share; ties share the smaller number.")
    token_rank: pl.Int32 = pa.Field(description="1 for the scope's largest token_share; ties share the smaller number.")
    usage_share: float = pa.Field(
        description="The share of the scope's requests that the published lists attribute to the model: a "
        "lower bound, for lists end at the top models. Rounded to 12 decimals."
    )
    token_share: float = pa.Field(
        description="The share of the scope's tokens that the published lists attribute to the model: a "
        "lower bound. Rounded to 12 decimals."
    )
    usage_share_upper: float = pa.Field(
        description="The largest share of requests that the model can have under the published lists."
    )
    token_share_upper: float = pa.Field(
        description="The largest share of tokens that the model can have under the published lists."
    )
    usage_rank_best: pl.Int32 = pa.Field(
        description="1 + the models whose usage_share is above this model's usage_share_upper."
    )
    usage_rank_worst: pl.Int32 = pa.Field(
        description="1 + the other models whose usage_share_upper is above this model's usage_share."
    )
    task_count: pl.Int32 = pa.Field(description="How many of the scope's tags list the model.")
    top_task: str = pa.Field(description="The tag that gives the model the most usage in the scope.")

    check_bounds = row_rule(
        rules.BOUNDS,
        pl.all_horizontal(pl.col("usage_share", "token_share", "usage_share_upper", "token_share_upper").is_finite())
        & (pl.col("usage_share") <= pl.col("usage_share_upper"))
        & (pl.col("token_share") <= pl.col("token_share_upper"))
        & (pl.col("usage_rank_best") <= pl.col("usage_rank"))
        & (pl.col("usage_rank") <= pl.col("usage_rank_worst")),
    )


TABLES: dict[str, type[DayTable]] = {
    "snapshots": Snapshots,
    "task_classifications": TaskClassifications,
    "macro_categories": MacroCategories,
    "task_models": TaskModels,
    "model_leaderboard": ModelLeaderboard,
}
"""Every table of the schema `openrouter`, by name."""


class ModelTrends(_RankedModels):
    """The view `model_trends`."""

    class Config:
        description = "One row a day, scope and model: the leaderboard with its changes, computed as it is read."

    usage_rank: pl.Int32 = pa.Field(description="The model's rank of the day, as in `model_leaderboard`.")
    usage_share: float = pa.Field(description="The share attributed to the model, as in `model_leaderboard`.")
    usage_rank_1d: pl.Int32 = pa.Field(
        description="Its usage_rank 1 day before; NULL where that day is not there, or did not list the model.",
        nullable=True,
    )
    usage_rank_7d: pl.Int32 = pa.Field(
        description="Its usage_rank 7 days before; NULL where that day is not there, or did not list the model.",
        nullable=True,
    )
    usage_share_change_1d: float = pa.Field(
        description="usage_share less that of 1 day before, in fractions of 1; NULL where that day is not there, or "
        "did not list the model: what it had then is not published.",
        nullable=True,
    )
    usage_share_change_7d: float = pa.Field(
        description="usage_share less that of 7 days before, in fractions of 1; NULL as for 1 day. The windows of two "
        "days that are 7 days apart share no day.",
        nullable=True,
    )
    first_seen: pl.Date = pa.Field(description="The first day that lists the model in the scope.")
    days_listed: pl.Int32 = pa.Field(description="How many days up to this one list the model in the scope.")


class LatestLeaderboard(ModelLeaderboard):
    """The view `latest_leaderboard`."""

    class Config:
        description = "One row a model: the leaderboard of the newest day, of all classified traffic."


VIEWS: dict[str, type[DayTable]] = {"model_trends": ModelTrends, "latest_leaderboard": LatestLeaderboard}
"""Every view of the schema `openrouter`, by name. They read as the tables do."""
RELATIONS: dict[str, type[DayTable]] = {**TABLES, **VIEWS}
"""Tables and views."""
