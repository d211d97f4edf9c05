"""The tables: one pandera model each, with column names, types, descriptions, keys and the rules for single rows.

Columns marked as key are the table's primary key. Every share is a fraction of 1, as OpenRouter publishes it (rounded
to 3 decimals), unless its description states otherwise. A model's `validate` checks columns, types, NULLs, keys and
every rule that rejects a row.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandera.polars as pa
import polars as pl

from orpipeline.catalogue.tables import ModelPrices, Models
from orpipeline.contracts import rules
from orpipeline.contracts.rules import ALL, Rule
from orpipeline.contracts.table import Instant, Table, ValueRule, column, key_column, optional_column

# A part of a name (`part:part`, `part/part`) that is `other` or `others`, in any case and with any punctuation.
_OTHER = r"(?i)(^|[:/])[^a-z0-9:/]*others?[^a-z0-9:/]*($|[:/])"
# Accents, and characters that are not drawn: with them, `other` would only look like itself.
_DISGUISE = r"[\p{M}\p{Cf}\p{Default_Ignorable_Code_Point}]"
# What a usual key does not have: a space at an end; control, format, private and unassigned characters; line and
# paragraph separators; characters that are not drawn; any space but U+0020.
_UNUSUAL_KEY = r"^ | $|[\p{C}\p{Zl}\p{Zp}\p{Default_Ignorable_Code_Point}\x{2800}[\p{Zs}--\x20]]"
_UNUSUAL_TEXT = r"^\s*$|[\p{Cc}\p{Zl}\p{Zp}]"
_LONGEST_KEY = 200  # characters


def folded(name: pl.Expr) -> pl.Expr:
    """Return names as they are compared: trimmed, in NFKC, without case."""
    # Some letters differ in one case only: both `ss` and the German sharp s are `SS`.
    return name.str.normalize("NFKC").str.strip_chars().str.to_lowercase().str.to_uppercase()


def _of_names(rule: Rule, is_broken: Callable[[pl.Expr], pl.Expr]) -> ValueRule:
    """Return a rule for names. A day has few different names, and normalizing is slow, so each is judged once."""

    def judge(name: pl.Expr) -> pl.Expr:
        names = name.unique(maintain_order=True)  # without the fixed order, two evaluations could differ
        return name.is_in(names.filter(is_broken(names)).implode())

    return rule, judge


_NOT_OTHER = _of_names(
    rules.NO_OTHER,
    lambda n: n.str.contains(_OTHER) | n.str.normalize("NFKD").str.replace_all(_DISGUISE, "").str.contains(_OTHER),
)
_NOT_ALL = _of_names(rules.NOT_ALL, lambda n: folded(n.str.replace_all(_DISGUISE, "")) == ALL.upper())
_NOT_EMPTY = _of_names(rules.NAMED, lambda n: n.str.strip_chars() == "")
_USUAL_KEY = _of_names(
    rules.USUAL_NAMES,
    lambda n: n.str.contains(_UNUSUAL_KEY) | (n.str.len_chars() > _LONGEST_KEY) | (n.str.normalize("NFC") != n),
)
_USUAL_TEXT = _of_names(rules.USUAL_NAMES, lambda n: n.str.contains(_UNUSUAL_TEXT))
_HAS_AUTHOR = _of_names(rules.MODEL_AUTHORS, lambda n: ~n.str.contains("^[^/]+/."))
# NaN is larger than every number for polars, so it is outside.
_FRACTION: ValueRule = (rules.SHARES, lambda share: ~share.is_between(0.0, 1.0))

_KEY_RULES = (_NOT_OTHER, _NOT_EMPTY, _USUAL_KEY)


def _share(description: str) -> Any:
    return column(description, _FRACTION, missing=rules.SHARES)


class DayTable(Table):
    """The columns of every table of task classifications."""

    window_days: pl.Int32 = key_column("The number of days that the figures cover, up to and including `as_of`.")


class Snapshots(DayTable):
    """One row per day: the response that the day's figures come from, with its sha256.

    >>> import orpipeline
    >>> rows = orpipeline.Snapshots.validate(orpipeline.read("snapshots"))
    >>> rows["revision"].max()
    1
    """

    revision: pl.Int32 = column("The response's place among the day's, in the order of their fetch times, from 1.")
    sha256: str = column(
        "The sha256 of the response's bytes, in hex. The archived file's name begins with its first 16 digits."
    )
    bytes: pl.Int64 = column("The response's length in bytes.")
    fetched_at: Instant = optional_column("When the response was fetched; NULL if it was imported without that time.")
    origin: str = column("`api`, `import` (a snapshot from a file), or `demo` (made-up figures).")
    source: str = column("The URL that the response was fetched from, or the file that it was imported from.")
    classification_count: pl.Int32 = column("The number of tags in the response.")
    citation: str = column("How to cite the day's figures.")


_LISTED = "What the listed models add up to, as a fraction of the tag's {}."
_UNLISTED_UPPER = "The largest share of the {} that a model that is not listed can have, as a sum of published figures."
_UNLISTED_UP = "The same for {}, with all rounding: the true share of an unlisted model does not exceed it."


class TaskClassifications(DayTable):
    """One row per day and tag: each task's share of requests and of tokens.

    >>> import orpipeline
    >>> tasks = orpipeline.TaskClassifications.validate(orpipeline.read("task_classifications"))
    >>> tasks.filter(usage_rank=1).select("as_of", "display_name").height >= 3
    True
    """

    tag: str = key_column("The task's name in the API, such as `code:debugging`.", *_KEY_RULES)
    display_name: str = column("The task's display name.", _NOT_OTHER, _USUAL_TEXT)
    macro_category: str = column(
        "The tag's group, by its prefix: `code`, `data` or `agent`, otherwise `general`.",
        _NOT_ALL,
        *_KEY_RULES,
    )
    usage_share: float = _share("The tag's share of all classified requests.")
    token_share: float = _share("The tag's share of all classified tokens.")
    category_usage_share: float = _share("The tag's share of its macro-category's requests.")
    category_token_share: float = _share("The tag's share of its macro-category's tokens.")
    usage_rank: pl.Int32 = column("1 for the day's largest share of requests. Ties get the same rank, as in 1, 1, 3.")
    token_rank: pl.Int32 = column("1 for the day's largest share of tokens. Ties get the same rank, as in 1, 1, 3.")
    models_listed: pl.Int32 = column("The number of models that the tag lists.")
    usage_listed: float = column(_LISTED.format("requests"))
    token_listed: float = column(_LISTED.format("tokens"))
    unlisted_usage_upper: float = column(
        _UNLISTED_UPPER.format("tag's requests") + " At most the last listed one's, and what the listed ones leave."
    )
    unlisted_token_upper: float = column(
        _UNLISTED_UPPER.format("tag's tokens") + " At most what the listed ones leave."
    )


class MacroCategories(DayTable):
    """One row per day and macro-category: each group of tasks' share of requests and of tokens.

    >>> import orpipeline
    >>> orpipeline.MacroCategories.primary_key()
    ['as_of', 'window_days', 'key']
    """

    key: str = key_column("The macro-category's name in the API, such as `code`.", _NOT_ALL, *_KEY_RULES)
    label: str = column("The macro-category's display name.", _NOT_OTHER, _USUAL_TEXT)
    usage_share: float = _share("The macro-category's share of all classified requests.")
    token_share: float = _share("The macro-category's share of all classified tokens.")


_TIES = "1 for the largest {} of the tag or scope. Ties get the same rank, as in 1, 1, 3."
_BEST = "The best possible rank by {} among those listed: 1 + the number of others that certainly have more."
_WORST = (
    "The worst possible rank by {} among those listed: 1 + the number of others that could have more, given what is "
    "not listed, and the rounding of the published shares."
)


class _Ranked(DayTable):
    """The columns of everything with ranks."""

    usage_rank: pl.Int32 = column(_TIES.format("share of requests"))
    usage_rank_best: pl.Int32 = column(_BEST.format("requests"))
    usage_rank_worst: pl.Int32 = column(_WORST.format("requests"))
    token_rank: pl.Int32 = column(_TIES.format("share of tokens"))
    token_rank_best: pl.Int32 = column(_BEST.format("tokens"))
    token_rank_worst: pl.Int32 = column(_WORST.format("tokens"))


_AUTHOR = "The part of the model id before the `/`; NULL if there is no `/`."
_MODEL = "The part of the model id between `/` and `:`."
_VARIANT = "The part of the model id after the `:`, such as `free`; NULL if there is no `:`."


class TaskModels(_Ranked):
    """One row per day, tag and listed model: each task's top models by requests.

    >>> import orpipeline
    >>> import polars as pl
    >>> no_models = pl.DataFrame(schema=orpipeline.TaskModels.polars_schema())
    >>> orpipeline.TaskModels.validate(no_models).height
    0
    """

    tag: str = key_column("The task's name in the API.")
    model_id: str = key_column("The model, as `author/model` or `author/model:variant`.", *_KEY_RULES, _HAS_AUTHOR)
    position: pl.Int32 = column("The model's place in the tag's list, from 1.")
    tag_usage_share: float = _share("The model's share of the tag's requests.")
    tag_token_share: float = _share("The model's share of the tag's tokens.")
    author: str = optional_column(_AUTHOR)
    model: str = column(_MODEL)
    variant: str = optional_column(_VARIANT)


_SCOPE = f"`{ALL}` for all classified traffic, or a macro-category's key."
_SCOPE_MODEL = "The model, as `author/model` or `author/model:variant`."
_SHARE = (
    "The share of the scope's {} that the published lists attribute to the row's model or author. A lower bound, "
    "because only the top models are listed. Rounded to 12 decimals."
)
_UPPER = (
    "The largest share of {} that the published lists allow, as a sum of published figures: their rounding can move it "
    "by about {}."
)
_LOW = "The smallest true share of {} that the published figures allow: what is attributed, less all rounding."
_UP = "The largest true share of {} that the published figures allow: the upper bound, and all rounding."


class _Board(_Ranked):
    """The columns of both leaderboards."""

    scope: str = key_column(_SCOPE)
    usage_share: float = column(_SHARE.format("requests"))
    usage_share_upper: float = column(_UPPER.format("requests", 0.002))
    token_share: float = column(_SHARE.format("tokens"))
    token_share_upper: float = column(_UPPER.format("tokens", 0.01))

    @pa.dataframe_check(error=rules.BOUNDS.name)
    @classmethod
    def _bounds_hold(cls, data: pa.PolarsData) -> pl.LazyFrame:
        of_each = [
            pl.col(f"{p}_share").is_between(0.0, f"{p}_share_upper")
            & pl.col(f"{p}_share_upper").is_finite()
            & pl.col(f"{p}_rank").is_between(f"{p}_rank_best", f"{p}_rank_worst")
            for p in ("usage", "token")
        ]
        return data.lazyframe.select(pl.all_horizontal(of_each))


class ModelLeaderboard(_Board):
    """One row per day, scope and model: market share and rank, with their bounds.

    >>> import orpipeline
    >>> from pandera.typing.polars import DataFrame
    >>> def certain(rows: DataFrame[orpipeline.ModelLeaderboard]) -> int:
    ...     return rows.filter(rows["usage_rank_best"] == rows["usage_rank_worst"]).height
    >>> certain(orpipeline.ModelLeaderboard.validate(orpipeline.read("model_leaderboard"))) > 0
    True
    """

    model_id: str = key_column(_SCOPE_MODEL)
    author: str = optional_column(_AUTHOR)
    model: str = column(_MODEL)
    variant: str = optional_column(_VARIANT)
    task_count: pl.Int32 = column("The number of the scope's tags that list the model.")
    top_task: str = column("The tag that contributes most to the model's usage_share.")
    usage_share_low: float = column(_LOW.format("requests"))
    usage_share_up: float = column(_UP.format("requests"))
    token_share_low: float = column(_LOW.format("tokens"))
    token_share_up: float = column(_UP.format("tokens"))

    @pa.dataframe_check(error=rules.BOUNDS.name)
    @classmethod
    def _bounds_hold_with_rounding(cls, data: pa.PolarsData) -> pl.LazyFrame:
        low = [pl.col(f"{p}_share_low") <= pl.col(f"{p}_share") for p in ("usage", "token")]
        up = [pl.col(f"{p}_share_upper") <= pl.col(f"{p}_share_up") for p in ("usage", "token")]
        return data.lazyframe.select(pl.all_horizontal(low + up))


_NULL_BEFORE = "NULL if that day is missing or does not list the model"
_CHANGE = (
    "The {} change of the true share of {} since 7 days before that the published figures allow, also for a model that "
    "no list named then; NULL if that day is missing. The change is certain if both ends have one sign."
)


class ModelTrends(DayTable):
    """One row per day, scope and model: the leaderboard's changes, computed when you read them.

    >>> import orpipeline
    >>> orpipeline.ModelTrends.columns()["first_seen"].description
    'The first day that lists the model in the scope.'
    """

    scope: str = key_column(_SCOPE)
    model_id: str = key_column(_SCOPE_MODEL)
    usage_rank: pl.Int32 = column("The model's rank on the day, as in `model_leaderboard`.")
    usage_share: float = column("The share attributed to the model, as in `model_leaderboard`.")
    usage_rank_1d: pl.Int32 = optional_column(f"The usage_rank 1 day before; {_NULL_BEFORE}.")
    usage_rank_7d: pl.Int32 = optional_column(f"The usage_rank 7 days before; {_NULL_BEFORE}.")
    usage_share_change_1d: float = optional_column(f"usage_share minus the usage_share 1 day before; {_NULL_BEFORE}.")
    usage_share_change_7d: float = optional_column(f"usage_share minus the usage_share 7 days before; {_NULL_BEFORE}.")
    first_seen: pl.Date = column("The first day that lists the model in the scope.")
    days_listed: pl.Int32 = column("The number of days up to this one that list the model in the scope.")
    usage_share_change_7d_low: float = optional_column(_CHANGE.format("smallest", "requests"))
    usage_share_change_7d_high: float = optional_column(_CHANGE.format("largest", "requests"))
    token_share_change_7d_low: float = optional_column(_CHANGE.format("smallest", "tokens"))
    token_share_change_7d_high: float = optional_column(_CHANGE.format("largest", "tokens"))


_ABOVE_UNLISTED = (
    "The number of models that certainly have more {} than any model on none of the scope's lists. Their possible "
    "ranks hold against every model; the others' are among listed models only."
)


class LeaderboardCoverage(DayTable):
    """One row per day and scope: how much the lists tell, and what they leave open.

    The scopes are `all` and the macro-categories of the day's tags. A scope has a row even if its lists are empty.

        >>> import orpipeline
        >>> coverage = orpipeline.LeaderboardCoverage.validate(orpipeline.read("leaderboard_coverage", scope="all"))
        >>> coverage["unlisted_usage_upper"].max() < 1
        True
    """

    scope: str = key_column(_SCOPE)
    model_count: pl.Int32 = column("The number of models that the scope's lists name.")
    usage_attributed: float = column("The share of the scope's requests that the lists attribute to models.")
    token_attributed: float = column("The share of the scope's tokens that the lists attribute to models.")
    unlisted_usage_upper: float = column(_UNLISTED_UPPER.format("scope's requests"))
    unlisted_token_upper: float = column(_UNLISTED_UPPER.format("scope's tokens"))
    usage_models_above_unlisted: pl.Int32 = column(_ABOVE_UNLISTED.format("requests"))
    token_models_above_unlisted: pl.Int32 = column(_ABOVE_UNLISTED.format("tokens"))
    unlisted_usage_up: float = column(_UNLISTED_UP.format("requests"))
    unlisted_token_up: float = column(_UNLISTED_UP.format("tokens"))


class AuthorLeaderboard(_Board):
    """One row per day, scope and author: the shares of all its listed models, and its rank.

        >>> import orpipeline
        >>> authors = orpipeline.AuthorLeaderboard.validate(orpipeline.read("author_leaderboard", scope="code"))
        >>> authors["usage_rank"].min()
        1

    A model id that names no author (`author` is NULL or empty in `model_leaderboard`) is in no row. Its share could
    belong to any author, so it counts as open: it is part of every author's upper bound.
    Its own unlisted models count as open, too, so ranges of possible ranks are wide.
    """

    author: str = key_column("The part of its models' ids before the `/`. Models without an author are in no row.")
    model_count: pl.Int32 = column("The number of the author's models that the scope's lists name.")
    top_model: str = column("The author's model with the largest usage_share.")


class LatestLeaderboard(ModelLeaderboard):
    """One row per model: the leaderboard of all classified traffic on the newest day.

    >>> import orpipeline
    >>> latest = orpipeline.LatestLeaderboard.validate(orpipeline.read("latest_leaderboard"))
    >>> latest["scope"].unique().to_list()
    ['all']
    """


class NamedLeaderboard(ModelLeaderboard):
    """The leaderboard with each model's name, list prices and open weights, from the catalogue of the day.

    >>> import orpipeline
    >>> orpipeline.NamedLeaderboard.primary_key() == orpipeline.ModelLeaderboard.primary_key()
    True

    If the day has no catalogue, the newest one before it counts. What the catalogue does not have is NULL.
    """

    catalogue_as_of: pl.Date = optional_column("The day of the catalogue that the other columns come from.")
    name: str = optional_column("The model's name.")
    open_weights: bool = optional_column("Whether the catalogue names a repository with the model's weights.")
    created: Instant = optional_column("When OpenRouter added the model.")
    context_length: pl.Int64 = optional_column("The most tokens that a request can have.")
    prompt_price: float = optional_column("The day's list price of prompt tokens, in USD per million.")
    completion_price: float = optional_column("The day's list price of completion tokens, in USD per million.")


TABLES: dict[str, type[DayTable]] = {
    "snapshots": Snapshots,
    "task_classifications": TaskClassifications,
    "macro_categories": MacroCategories,
    "task_models": TaskModels,
    "model_leaderboard": ModelLeaderboard,
    "author_leaderboard": AuthorLeaderboard,
    "leaderboard_coverage": LeaderboardCoverage,
}
"""Every table of the daily step, by name."""
VIEWS: dict[str, type[Table]] = {
    "model_trends": ModelTrends,
    "latest_leaderboard": LatestLeaderboard,
    "model_prices": ModelPrices,
    "named_leaderboard": NamedLeaderboard,
}
"""Every view of the schema `openrouter`, by name. You read them like tables."""
RELATIONS: dict[str, type[Table]] = {**TABLES, "models": Models, **VIEWS}
"""Tables and views, by name."""
EXPORTED: dict[str, type[Table]] = {name: model for name, model in RELATIONS.items() if name != "latest_leaderboard"}
"""The tables and views that are also Parquet files: all but the one that repeats the newest day."""
