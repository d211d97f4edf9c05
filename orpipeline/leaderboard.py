"""From a day's tasks and their lists to its leaderboards: shares, how large they can be, and which ranks are possible.

One arithmetic, for models, authors, what the lists cover, and a task's own list. A day's rows depend on that day alone.

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

An author can have any number of unlisted models, so the smallest listed share caps nothing: under each tag it has at
most what the other authors' listed models leave. See `orpipeline.AuthorLeaderboard`.

Sums are rounded to 12 decimals. Published shares have 3 decimals, so their products have 6, and rounding removes the
error of adding doubles, whatever the order of summation.
"""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from orpipeline.contracts.rules import ALL, HALF_STEP

DECIMALS = 12
MEASURES = ("usage", "token")
_DAY = ["as_of", "window_days"]
_TAG = [*_DAY, "tag"]
_SCOPE = [*_DAY, "scope"]


def rank(task_classifications: pl.DataFrame, task_models: pl.DataFrame) -> pl.DataFrame:
    """Return the leaderboard of models of every day and scope.

        >>> import orpipeline
        >>> tasks, models = orpipeline.read("task_classifications"), orpipeline.read("task_models")
        >>> orpipeline.rank(tasks, models).height == orpipeline.read("model_leaderboard").height
        True

    Takes the columns of the tables `task_classifications` and `task_models` that the API publishes, for any number of
    days. Returns the columns of `model_leaderboard`: one row per day, scope and model that a tag of the scope lists,
    sorted by day, scope, `usage_rank` and `model_id`. Shares are fractions of the scope's traffic.
    """
    return leaderboards(task_classifications, task_models)["model_leaderboard"]


def leaderboards(tags: pl.DataFrame, models: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """Return all that follows from what the API publishes of tags and their models, by table name.

    These are `model_leaderboard`, `author_leaderboard` and `leaderboard_coverage`, and the tables
    `task_classifications` and `task_models` with their other columns.
    """
    lists = _lists(tags, models)
    scoped = _scoped(tags).join(lists, on=_TAG, how="left", maintain_order="left")
    named = models.with_columns(**model_id_parts())
    listed = scoped.join(named, on=_TAG, how="inner")
    board, coverage = _model_board(scoped, listed)
    return {
        "task_classifications": _with_lists(tags, lists),
        "task_models": _with_ranks_in_task(named),
        "model_leaderboard": board,
        "author_leaderboard": _author_board(scoped, listed, board),
        "leaderboard_coverage": coverage,
    }


def model_id_parts(model_id: str = "model_id") -> dict[str, pl.Expr]:
    """Return expressions for `author`, `model` and `variant` of ids `author/model:variant`.

    `author` is NULL for an id without `/`, and `variant` for an id without `:` after the author.
    """
    parts = pl.col(model_id).str.extract_groups(r"(?s)^(?:(?<author>[^/]*)/)?(?<model>[^:]*)(?::(?<variant>.*))?$")
    return {name: parts.struct.field(name) for name in ("author", "model", "variant")}


def _lists(tags: pl.DataFrame, models: pl.DataFrame) -> pl.DataFrame:
    """Return what each tag's list adds up to, and the most that a model that it does not list can have.

    `usage_left` and `token_left` are r(t); `usage_left_up` and `token_left_up` are r'(t).
    """
    usage, tokens = pl.col("tag_usage_share"), pl.col("tag_token_share")
    sums = models.group_by(_TAG).agg(
        models_listed=pl.len().cast(pl.Int32),
        usage_listed=usage.sum(),
        token_listed=tokens.sum(),
        usage_left=pl.min_horizontal(usage.min(), 1 - usage.sum()),
        token_left=1 - tokens.sum(),
        usage_left_up=pl.min_horizontal(usage.min() + HALF_STEP, 1 - (usage - HALF_STEP).sum()),
        token_left_up=1 - (tokens - HALF_STEP).sum(),
    )
    left = ["usage_left", "token_left", "usage_left_up", "token_left_up"]
    return (
        tags.select(_TAG)
        .join(sums, on=_TAG, how="left", maintain_order="left")
        .with_columns(
            pl.col("models_listed", "usage_listed", "token_listed").fill_null(0),
            pl.col(left).clip(lower_bound=0.0).fill_null(1.0),
        )
    )


def _scoped(tags: pl.DataFrame) -> pl.DataFrame:
    """Return one row per scope and tag, with the tag's shares of the scope: `usage_weight` and `token_weight`."""
    return pl.concat(
        tags.select(*_TAG, scope=scope, usage_weight=f"{of}usage_share", token_weight=f"{of}token_share")
        for scope, of in ((pl.lit(ALL), ""), (pl.col("macro_category"), "category_"))
    )


def _with_lists(tags: pl.DataFrame, lists: pl.DataFrame) -> pl.DataFrame:
    return tags.with_columns(
        usage_rank=_competition_rank("usage_share", _DAY), token_rank=_competition_rank("token_share", _DAY)
    ).join(
        lists.select(
            *_TAG,
            "models_listed",
            pl.col("usage_listed", "token_listed").round(DECIMALS),
            unlisted_usage_upper=pl.col("usage_left").round(DECIMALS),
            unlisted_token_upper=pl.col("token_left").round(DECIMALS),
        ),
        on=_TAG,
        how="left",
        maintain_order="left",
    )


def _with_ranks_in_task(models: pl.DataFrame) -> pl.DataFrame:
    """Return the models with their possible ranks within each tag.

    Rounding keeps the order of different shares, so only listed models with equal published shares can be in any order.
    """
    ranks: dict[str, pl.Expr] = {}
    for k in MEASURES:
        first = _competition_rank(f"tag_{k}_share", _TAG)
        last = pl.col(f"tag_{k}_share").rank("max", descending=True).over(_TAG).cast(pl.Int32)
        ranks |= {f"{k}_rank": first, f"{k}_rank_best": first, f"{k}_rank_worst": last}
    return models.with_columns(**ranks)


def _model_board(scoped: pl.DataFrame, listed: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return `model_leaderboard` and `leaderboard_coverage`."""
    terms: dict[str, pl.Expr] = {}
    for k in MEASURES:
        share = pl.col(f"tag_{k}_share")
        terms |= {f"{k}_in": share, f"{k}_most": share, f"{k}_least": _low(share), f"{k}_most_up": share + HALF_STEP}
    attributed = (pl.col("usage_weight") * pl.col("usage_in")).round(DECIMALS)
    others = [
        pl.len().cast(pl.Int32).alias("task_count"),
        pl.col("tag").sort_by(attributed, "tag", descending=[True, False]).first().alias("top_task"),
        pl.col("author", "model", "variant").first(),
    ]
    board, rests = _board(scoped, listed.with_columns(**terms), "model_id", others)
    unlisted = rests.select(
        *_SCOPE,
        pl.col("^.*_rest$").round(DECIMALS).name.map(lambda name: f"unlisted_{name.removesuffix('_rest')}_upper"),
        pl.col("^.*_rest_up$").round(DECIMALS).name.map(lambda name: f"unlisted_{name.removesuffix('_rest_up')}_up"),
    )
    above = {f"{k}_models_above_unlisted": pl.col(f"{k}_share_low") > pl.col(f"unlisted_{k}_up") for k in MEASURES}
    sums = (
        board.join(unlisted, on=_SCOPE)
        .group_by(_SCOPE)
        .agg(
            model_count=pl.len().cast(pl.Int32),
            **{f"{k}_attributed": pl.col(f"{k}_share").sum().round(DECIMALS) for k in MEASURES},
            **{name: is_above.sum().cast(pl.Int32) for name, is_above in above.items()},
        )
    )
    coverage = unlisted.join(sums, on=_SCOPE, how="left").with_columns(
        pl.col("model_count", "^.*_attributed$", "^.*_above_unlisted$").fill_null(0)
    )
    return board, coverage.sort(*_DAY, pl.col("scope") != ALL, "scope")


def _author_board(scoped: pl.DataFrame, listed: pl.DataFrame, board: pl.DataFrame) -> pl.DataFrame:
    """Return `author_leaderboard`. A model without an author could be anyone's, so it counts as open.

    An author can have what the other authors' listed models leave: more than its own listed models have.
    """
    own = (
        listed.filter(pl.col("author").fill_null("") != "")
        .group_by(*_SCOPE, "tag", "author", maintain_order=True)
        .agg(
            pl.col("usage_weight", "token_weight").first(),
            **{f"{k}_in": pl.col(f"tag_{k}_share").sum() for k in MEASURES},
            **{f"{k}_least": _low(pl.col(f"tag_{k}_share")).sum() for k in MEASURES},
        )
    )
    by_tag = own.group_by(*_SCOPE, "tag").agg(pl.col("^.*_in$", "^.*_least$").sum().name.suffix("_of_all"))
    left = {
        f"{k}_left{up}": 1 - pl.col(f"{k}_{of}_of_all").fill_null(0.0)
        for k in MEASURES
        for up, of in (("", "in"), ("_up", "least"))
    }
    tags = scoped.drop("^.*_left$", "^.*_left_up$").join(by_tag, on=[*_SCOPE, "tag"], how="left").with_columns(**left)
    most = {
        f"{k}_most{up}": pl.max_horizontal(f"{k}_in", pl.col(f"{k}_left{up}") + pl.col(f"{k}_{of}"))
        for k in MEASURES
        for up, of in (("", "in"), ("_up", "least"))
    }
    at_least_0 = pl.col("^.*_left$", "^.*_left_up$").clip(lower_bound=0.0)
    terms = own.join(tags.select(*_SCOPE, "tag", *left), on=[*_SCOPE, "tag"], how="left", maintain_order="left")
    authors, _ = _board(
        tags.with_columns(at_least_0), terms.with_columns(**most).with_columns(at_least_0), "author", []
    )
    models = board.group_by(*_SCOPE, "author").agg(
        model_count=pl.len().cast(pl.Int32),
        top_model=pl.col("model_id").sort_by("usage_share", "model_id", descending=[True, False]).first(),
    )
    of_authors = authors.drop("^.*_share_low$", "^.*_share_up$").join(models, on=[*_SCOPE, "author"], how="left")
    return of_authors.sort(*_DAY, pl.col("scope") != ALL, "scope", "usage_rank", "author")


def _board(
    tags: pl.DataFrame, listed: pl.DataFrame, name: str, others: Sequence[pl.Expr]
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the sums and ranks of every `name` in each scope, and the most that one on no list can have there.

    `tags` has each tag's shares of the scope, and what it leaves to those that it does not list: `usage_weight`,
    `usage_left` (r) and `usage_left_up` (r'). `listed` also has what each listed one has of the tag: `usage_in`,
    `usage_most` (as sums of published figures), `usage_least` and `usage_most_up` (with their rounding). Tokens
    likewise. `others` are aggregated too.
    """
    sums: dict[str, pl.Expr] = {}
    rests: dict[str, pl.Expr] = {}
    for k in MEASURES:
        weight, weight_up = pl.col(f"{k}_weight"), pl.col(f"{k}_weight") + HALF_STEP
        sums |= {
            f"{k}_share": (weight * pl.col(f"{k}_in")).sum(),
            f"{k}_share_upper": (weight * pl.col(f"{k}_most")).sum(),
            f"{k}_share_low": (_low(weight) * pl.col(f"{k}_least")).sum(),
            f"{k}_share_up": (weight_up * pl.col(f"{k}_most_up")).sum(),
        }
        rests |= {
            f"{k}_rest": (weight * pl.col(f"{k}_left")).sum(),
            f"{k}_rest_up": (weight_up * pl.col(f"{k}_left_up")).sum(),
        }
    total = tags.group_by(_SCOPE).agg(**rests)
    summed = listed.group_by(*_SCOPE, name, maintain_order=True).agg(
        *others, **sums, **{f"own_{rest}": expression for rest, expression in rests.items()}
    )
    bounded = summed.join(total, on=_SCOPE, how="left", maintain_order="left").with_columns(
        *(pl.col(f"{k}_share", f"{k}_share_low").round(DECIMALS) for k in MEASURES),
        *(_with_rest(f"{k}_share_upper", f"{k}_rest") for k in MEASURES),
        *(_with_rest(f"{k}_share_up", f"{k}_rest_up") for k in MEASURES),
    )
    ranked = _with_ranks(bounded.drop(*rests, *(f"own_{rest}" for rest in rests)), _SCOPE)
    return ranked.sort(*_DAY, pl.col("scope") != ALL, "scope", "usage_rank", name), total


def _with_ranks(rows: pl.DataFrame, group: Sequence[str]) -> pl.DataFrame:
    """Return the rows with their rank, and their best and worst possible ranks, in each group and measure."""
    ranks: dict[str, pl.Expr] = {}
    for k in MEASURES:
        ranks |= {
            f"{k}_rank": _competition_rank(f"{k}_share", group),
            f"{k}_rank_best": 1 + _count_above(f"{k}_share_low", f"{k}_share_up", group),
            f"{k}_rank_worst": 1
            + _count_above(f"{k}_share_up", f"{k}_share_low", group)
            - (pl.col(f"{k}_share_up") > pl.col(f"{k}_share_low")).cast(pl.Int32),  # itself
        }
    return rows.with_columns(**ranks)


def _low(share: pl.Expr) -> pl.Expr:
    """Return the smallest true share that is published as this one."""
    return (share - HALF_STEP).clip(lower_bound=0.0)


def _with_rest(bound: str, rest: str) -> pl.Expr:
    """Return a sum over the tags that list a name, plus the rest of the scope's other tags."""
    # A difference of sums can be slightly below 0.
    elsewhere = (pl.col(rest) - pl.col(f"own_{rest}")).round(DECIMALS).clip(lower_bound=0.0)
    return (pl.col(bound) + elsewhere).round(DECIMALS)


def _competition_rank(share: str, group: Sequence[str]) -> pl.Expr:
    return pl.col(share).rank("min", descending=True).over(group).cast(pl.Int32)


def _count_above(values: str, bound: str, group: Sequence[str]) -> pl.Expr:
    """Return, for each row, how many of the group's `values` are above the row's `bound`."""
    count_below_or_at = pl.col(values).sort().search_sorted(pl.col(bound), side="right")
    return (pl.len() - count_below_or_at).over(group).cast(pl.Int32)
