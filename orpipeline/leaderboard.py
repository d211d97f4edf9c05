"""From a day's tables to its model leaderboard: the share that the published lists attribute to each model, and how
large it can be. A day's rows depend on that day alone.

For a tag t of the scope, w(t) is the tag's share of the scope, and s(t, m) a listed model's share of the tag:

- The attributed share of m is the sum of w(t) x s(t, m) over the tags that list m. It is a lower bound, because each
  tag lists only its top models by requests.
- Under a tag that does not list m, its share of requests is at most r(t) = min(smallest listed share, 1 - sum of the
  listed shares): with a larger share it would be listed. Its share of tokens is at most 1 - the sum of the listed token
  shares. Neither is below 0. Both are 1 if the tag lists no model.
- The upper bound of m is the attributed share plus the sum of w(t) x r(t) over the tags that do not list m.

Sums are rounded to 12 decimals. Published shares have 3 decimals, so their products have 6, and rounding removes the
error of adding doubles, whatever the order of summation.
"""

from __future__ import annotations

import polars as pl

from orpipeline.contracts.rules import ALL

DECIMALS = 12
_GROUP = ["as_of", "window_days", "scope"]
_MODEL = [*_GROUP, "model_id"]


def rank(task_classifications: pl.DataFrame, task_models: pl.DataFrame) -> pl.DataFrame:
    """Return the leaderboard of every day and scope.

    Takes the columns of the tables `task_classifications` and `task_models`, for any number of days. Returns the
    columns of `model_leaderboard`: one row per day, scope and model that a tag of the scope lists, sorted by day,
    scope, `usage_rank` and `model_id`. Shares are fractions of the scope's traffic.
    """
    tags = _scoped_tags(task_classifications, task_models)
    listed = _listed(tags, task_models)
    models = listed.group_by(_MODEL, maintain_order=True).agg(
        usage_share=pl.col("usage").sum(),
        token_share=pl.col("tokens").sum(),
        usage_open=pl.col("usage_rest").sum(),
        token_open=pl.col("token_rest").sum(),
        task_count=pl.len().cast(pl.Int32),
        # `_listed` sorts by usage, largest first, and then by tag.
        top_task=pl.col("tag").first(),
    )
    rests = tags.group_by(_GROUP, maintain_order=True).agg(
        usage_rest=pl.col("usage_rest").sum(), token_rest=pl.col("token_rest").sum()
    )
    bounded = models.join(rests, on=_GROUP, how="left", maintain_order="left").with_columns(
        usage_share_upper=_upper("usage_share", "usage_rest", "usage_open"),
        token_share_upper=_upper("token_share", "token_rest", "token_open"),
        usage_share=pl.col("usage_share").round(DECIMALS),
        token_share=pl.col("token_share").round(DECIMALS),
    )
    ranked = bounded.with_columns(
        usage_rank=_competition_rank("usage_share"),
        token_rank=_competition_rank("token_share"),
        usage_rank_best=1 + _count_above("usage_share", "usage_share_upper"),
        # Only other models count, so subtract the model itself if its own upper bound exceeds its share.
        usage_rank_worst=1
        + _count_above("usage_share_upper", "usage_share")
        - (pl.col("usage_share_upper") > pl.col("usage_share")).cast(pl.Int32),
    )
    return (
        ranked.with_columns(**model_id_parts())
        .select(
            *_MODEL,
            *("author", "model", "variant", "usage_rank", "token_rank", "usage_share", "token_share"),
            *("usage_share_upper", "token_share_upper", "usage_rank_best", "usage_rank_worst"),
            *("task_count", "top_task"),
        )
        .sort("as_of", "window_days", pl.col("scope") != ALL, "scope", "usage_rank", "model_id")
    )


def model_id_parts(model_id: str = "model_id") -> dict[str, pl.Expr]:
    """Return expressions for `author`, `model` and `variant` of ids `author/model:variant`.

    `author` is NULL for an id without `/`, and `variant` for an id without `:` after the author.
    """
    parts = pl.col(model_id).str.extract_groups(r"(?s)^(?:(?<author>[^/]*)/)?(?<model>[^:]*)(?::(?<variant>.*))?$")
    return {name: parts.struct.field(name) for name in ("author", "model", "variant")}


def _scoped_tags(task_classifications: pl.DataFrame, task_models: pl.DataFrame) -> pl.DataFrame:
    """Return one row per scope and tag: its weights in the scope, and the largest share of an unlisted model."""
    lists = task_models.group_by("as_of", "window_days", "tag").agg(
        smallest=pl.col("tag_usage_share").min(),
        usage_left=(1 - pl.col("tag_usage_share").sum()).clip(lower_bound=0.0),
        token_left=(1 - pl.col("tag_token_share").sum()).clip(lower_bound=0.0),
    )
    tags = task_classifications.join(lists, on=["as_of", "window_days", "tag"], how="left", maintain_order="left")
    key = ["as_of", "window_days", "tag"]
    left = {
        "usage_left": pl.min_horizontal("smallest", "usage_left").fill_null(1.0),
        "token_left": pl.col("token_left").fill_null(1.0),
    }
    everything = tags.select(*key, scope=pl.lit(ALL), usage_weight="usage_share", token_weight="token_share", **left)
    by_category = tags.select(
        *key,
        scope="macro_category",
        usage_weight="category_usage_share",
        token_weight="category_token_share",
        **left,
    )
    return pl.concat([everything, by_category]).with_columns(
        usage_rest=pl.col("usage_weight") * pl.col("usage_left"),
        token_rest=pl.col("token_weight") * pl.col("token_left"),
    )


def _listed(tags: pl.DataFrame, task_models: pl.DataFrame) -> pl.DataFrame:
    """Return one row per scope, tag and listed model; each model's largest contribution comes first."""
    return (
        tags.join(task_models, on=["as_of", "window_days", "tag"], how="inner")
        .with_columns(
            usage=(pl.col("usage_weight") * pl.col("tag_usage_share")).round(DECIMALS),
            tokens=pl.col("token_weight") * pl.col("tag_token_share"),
        )
        .sort(*_MODEL, "usage", "tag", descending=[False] * len(_MODEL) + [True, False])
    )


def _upper(share: str, rest: str, own_rest: str) -> pl.Expr:
    # The rest of the tags that do not list the model. A difference of sums can be slightly below 0.
    elsewhere = (pl.col(rest) - pl.col(own_rest)).round(DECIMALS).clip(lower_bound=0.0)
    return (pl.col(share) + elsewhere).round(DECIMALS)


def _competition_rank(share: str) -> pl.Expr:
    return pl.col(share).rank("min", descending=True).over(_GROUP).cast(pl.Int32)


def _count_above(values: str, bound: str) -> pl.Expr:
    """Return, for each row, how many of the group's `values` are above the row's `bound`."""
    count_below_or_at = pl.col(values).sort().search_sorted(pl.col(bound), side="right")
    return (pl.len() - count_below_or_at).over(_GROUP).cast(pl.Int32)
