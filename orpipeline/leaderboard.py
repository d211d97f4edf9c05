"""From a day's tables to its model leaderboard: the share that the published lists attribute to each model, how large
it can be, and which ranks are possible. A day's rows depend on that day alone.

For a tag t of the scope, w(t) is the tag's share of the scope, and s(t, m) a listed model's share of the tag:

- The attributed share of m is the sum of w(t) x s(t, m) over the tags that list m. It is a lower bound, because each
  tag lists only its top models by requests.
- Under a tag that does not list m, its share of requests is at most r(t) = min(smallest listed share, 1 - sum of the
  listed shares): with a larger share it would be listed. Its share of tokens is at most 1 - the sum of the listed token
  shares. Neither is below 0. Both are 1 if the tag lists no model.
- The upper bound of m is the attributed share plus the sum of w(t) x r(t) over the tags that do not list m.

These are sums of published shares, and each published share is up to h = `HALF_STEP` from the true one. A possible rank
must hold for every true share, so it compares intervals that allow for the rounding of each factor:

- low(m) is the sum of (w(t) - h) x (s(t, m) - h) over the tags that list m, no factor below 0.
- up(m) is the sum of (w(t) + h) x (s(t, m) + h) over the tags that list m, plus the sum of (w(t) + h) x r'(t) over the
  other tags, where r'(t) = min(smallest listed share + h, 1 - sum of (listed share - h)), for tokens only the second,
  and not below 0; 1 if the tag lists no model.
- The best rank of m is 1 + the number of models whose low is above up(m). The worst is 1 + the number of other models
  whose up is above low(m). As low <= attributed share <= up for each model, best <= rank <= worst.

Sums are rounded to 12 decimals. Published shares have 3 decimals, so their products have 6, and rounding removes the
error of adding doubles, whatever the order of summation.
"""

from __future__ import annotations

import polars as pl

from orpipeline.contracts.rules import ALL, HALF_STEP

DECIMALS = 12
_GROUP = ["as_of", "window_days", "scope"]
_MODEL = [*_GROUP, "model_id"]
_SUMS = ["usage_share", "token_share", "usage_low", "token_low", "usage_up", "token_up"]
_RESTS = ["usage_rest", "token_rest", "usage_rest_up", "token_rest_up"]


def rank(task_classifications: pl.DataFrame, task_models: pl.DataFrame) -> pl.DataFrame:
    """Return the leaderboard of every day and scope.

        >>> import orpipeline
        >>> tasks, models = orpipeline.read("task_classifications"), orpipeline.read("task_models")
        >>> orpipeline.rank(tasks, models).height == orpipeline.read("model_leaderboard").height
        True

    Takes the columns of the tables `task_classifications` and `task_models`, for any number of days. Returns the
    columns of `model_leaderboard`: one row per day, scope and model that a tag of the scope lists, sorted by day,
    scope, `usage_rank` and `model_id`. Shares are fractions of the scope's traffic.
    """
    tags = _scoped_tags(task_classifications, task_models)
    listed = _listed(tags, task_models)
    models = listed.group_by(_MODEL, maintain_order=True).agg(
        pl.col(_SUMS).sum(),
        pl.col(_RESTS).sum().name.prefix("own_"),
        task_count=pl.len().cast(pl.Int32),
        # `_listed` sorts by usage, largest first, and then by tag.
        top_task=pl.col("tag").first(),
    )
    rests = tags.group_by(_GROUP, maintain_order=True).agg(pl.col(_RESTS).sum())
    bounded = models.join(rests, on=_GROUP, how="left", maintain_order="left").with_columns(
        pl.col("usage_share", "token_share", "usage_low", "token_low").round(DECIMALS),
        usage_share_upper=_with_rest("usage_share", "usage_rest"),
        token_share_upper=_with_rest("token_share", "token_rest"),
        usage_up=_with_rest("usage_up", "usage_rest_up"),
        token_up=_with_rest("token_up", "token_rest_up"),
    )
    ranked = bounded.with_columns(
        usage_rank=_competition_rank("usage_share"),
        token_rank=_competition_rank("token_share"),
        usage_rank_best=1 + _count_above("usage_low", "usage_up"),
        usage_rank_worst=1 + _count_others_above("usage_up", "usage_low"),
        token_rank_best=1 + _count_above("token_low", "token_up"),
        token_rank_worst=1 + _count_others_above("token_up", "token_low"),
    )
    return (
        ranked.with_columns(**model_id_parts())
        .select(
            *_MODEL,
            *("author", "model", "variant", "usage_rank", "token_rank", "usage_share", "token_share"),
            *("usage_share_upper", "token_share_upper", "usage_rank_best", "usage_rank_worst"),
            *("token_rank_best", "token_rank_worst", "task_count", "top_task"),
        )
        .sort("as_of", "window_days", pl.col("scope") != ALL, "scope", "usage_rank", "model_id")
    )


def lows(task_classifications: pl.DataFrame, task_models: pl.DataFrame) -> pl.DataFrame:
    """Return low(m) of every row of the leaderboard: `usage_low` and `token_low` by day, scope and model."""
    listed = _listed(_scoped_tags(task_classifications, task_models), task_models)
    return listed.group_by(_MODEL, maintain_order=True).agg(pl.col("usage_low", "token_low").sum().round(DECIMALS))


def model_id_parts(model_id: str = "model_id") -> dict[str, pl.Expr]:
    """Return expressions for `author`, `model` and `variant` of ids `author/model:variant`.

    `author` is NULL for an id without `/`, and `variant` for an id without `:` after the author.
    """
    parts = pl.col(model_id).str.extract_groups(r"(?s)^(?:(?<author>[^/]*)/)?(?<model>[^:]*)(?::(?<variant>.*))?$")
    return {name: parts.struct.field(name) for name in ("author", "model", "variant")}


def _scoped_tags(task_classifications: pl.DataFrame, task_models: pl.DataFrame) -> pl.DataFrame:
    """Return one row per scope and tag: its weights in the scope, and the most that an unlisted model can have there.

    `usage_rest` and `token_rest` are w(t) x r(t); `usage_rest_up` and `token_rest_up` are (w(t) + h) x r'(t).
    """
    key = ["as_of", "window_days", "tag"]
    usage, tokens = pl.col("tag_usage_share"), pl.col("tag_token_share")
    left = task_models.group_by(key).agg(
        usage_left=pl.min_horizontal(usage.min(), 1 - usage.sum()),
        token_left=1 - tokens.sum(),
        usage_left_up=pl.min_horizontal(usage.min() + HALF_STEP, 1 - (usage - HALF_STEP).sum()),
        token_left_up=1 - (tokens - HALF_STEP).sum(),
    )
    tags = task_classifications.join(left, on=key, how="left", maintain_order="left").with_columns(
        pl.col("usage_left", "token_left", "usage_left_up", "token_left_up").clip(lower_bound=0.0).fill_null(1.0)
    )
    weights = pl.concat(
        tags.with_columns(scope=scope, usage_weight=usage_weight, token_weight=token_weight)
        for scope, usage_weight, token_weight in (
            (pl.lit(ALL), "usage_share", "token_share"),
            (pl.col("macro_category"), "category_usage_share", "category_token_share"),
        )
    )
    return weights.select(
        *(*key, "scope", "usage_weight", "token_weight"),
        usage_rest=pl.col("usage_weight") * pl.col("usage_left"),
        token_rest=pl.col("token_weight") * pl.col("token_left"),
        usage_rest_up=(pl.col("usage_weight") + HALF_STEP) * pl.col("usage_left_up"),
        token_rest_up=(pl.col("token_weight") + HALF_STEP) * pl.col("token_left_up"),
    )


def _listed(tags: pl.DataFrame, task_models: pl.DataFrame) -> pl.DataFrame:
    """Return one row per scope, tag and listed model; each model's largest contribution comes first."""
    usage = (pl.col("usage_weight"), pl.col("tag_usage_share"))
    tokens = (pl.col("token_weight"), pl.col("tag_token_share"))
    return (
        tags.join(task_models, on=["as_of", "window_days", "tag"], how="inner")
        .with_columns(
            usage_share=(usage[0] * usage[1]).round(DECIMALS),
            token_share=tokens[0] * tokens[1],
            usage_low=_product_low(*usage),
            token_low=_product_low(*tokens),
            usage_up=_product_up(*usage),
            token_up=_product_up(*tokens),
        )
        .sort(*_MODEL, "usage_share", "tag", descending=[False] * len(_MODEL) + [True, False])
    )


def _product_low(weight: pl.Expr, share: pl.Expr) -> pl.Expr:
    """Return the smallest product of two true shares that are published as these."""
    return (weight - HALF_STEP).clip(lower_bound=0.0) * (share - HALF_STEP).clip(lower_bound=0.0)


def _product_up(weight: pl.Expr, share: pl.Expr) -> pl.Expr:
    """Return the largest product of two true shares that are published as these."""
    return (weight + HALF_STEP) * (share + HALF_STEP)


def _with_rest(share: str, rest: str) -> pl.Expr:
    """Return a model's sum over the tags that list it, plus the rest of the scope's other tags."""
    # A difference of sums can be slightly below 0.
    elsewhere = (pl.col(rest) - pl.col(f"own_{rest}")).round(DECIMALS).clip(lower_bound=0.0)
    return (pl.col(share) + elsewhere).round(DECIMALS)


def _competition_rank(share: str) -> pl.Expr:
    return pl.col(share).rank("min", descending=True).over(_GROUP).cast(pl.Int32)


def _count_above(values: str, bound: str) -> pl.Expr:
    """Return, for each row, how many of the group's `values` are above the row's `bound`."""
    count_below_or_at = pl.col(values).sort().search_sorted(pl.col(bound), side="right")
    return (pl.len() - count_below_or_at).over(_GROUP).cast(pl.Int32)


def _count_others_above(values: str, bound: str) -> pl.Expr:
    """Return, for each row, how many `values` of the group's other rows are above the row's `bound`."""
    return _count_above(values, bound) - (pl.col(values) > pl.col(bound)).cast(pl.Int32)
