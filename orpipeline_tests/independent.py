"""The tables of one response, calculated a second time.

Plain loops over exact fractions, straight from the API's response, without any code of orpipeline: what the tables, the
page and the terminal show must equal these figures. Each function takes a response as the API sends it
(`{"data": {...}}`) and returns rows with the columns of the table, in its order of scopes and ranks. Shares are
the doubles that are nearest to the exact sums; ranks compare the exact sums.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

REAL = Path(__file__).parents[2] / "shared" / "real" / "task_classifications_2026-10-06.json"
"""A real response. It is not part of the project."""
needs_real = pytest.mark.skipif(not REAL.exists(), reason="the real response is not here: ../shared/real")

H = Fraction(5, 10_000)
"""How far a published share can be from the true one."""
KINDS = ("usage", "token")
Response = Mapping[str, Any]
Row = dict[str, Any]


def task_classifications(response: Response) -> list[Row]:
    """Return the rows of `task_classifications`, without `display_name` and `macro_category`."""
    tags = response["data"]["classifications"]
    shares = ("usage_share", "token_share", "category_usage_share", "category_token_share")
    rows = []
    for task, of_all in zip(tags, _scopes(response, Fraction(0))["all"], strict=True):
        row = {**_day(response), "tag": task["tag"], "models_listed": len(task["models"])}
        row |= {share: task[share] for share in shares}
        for kind in KINDS:
            row[f"{kind}_rank"] = 1 + sum(other[f"{kind}_share"] > task[f"{kind}_share"] for other in tags)
            row[f"{kind}_listed"] = float(sum(_exact(model[f"tag_{kind}_share"]) for model in task["models"]))
            row[f"unlisted_{kind}_upper"] = float(of_all["unlisted"][kind][0])
        rows.append(row)
    return rows


def task_models(response: Response) -> list[Row]:
    """Return the rows of `task_models`. Rounding keeps the order of different shares, so only equal ones can swap."""
    rows = []
    for task in response["data"]["classifications"]:
        for position, listed in enumerate(task["models"], start=1):
            author, name, variant = _parts(listed["id"])
            row = {**_day(response), "tag": task["tag"], "model_id": listed["id"], "position": position}
            row |= {"author": author, "model": name, "variant": variant}
            for kind in KINDS:
                own, shares = (listed[f"tag_{kind}_share"], [model[f"tag_{kind}_share"] for model in task["models"]])
                row[f"tag_{kind}_share"] = own
                row[f"{kind}_rank"] = row[f"{kind}_rank_best"] = 1 + sum(other > own for other in shares)
                row[f"{kind}_rank_worst"] = sum(other >= own for other in shares)
            rows.append(row)
    return rows


def leaderboard(response: Response, h: Fraction = H) -> list[Row]:
    """Return the rows of `model_leaderboard`."""
    rows = []
    for scope, tags in _scopes(response, h).items():
        models = sorted({model for tag in tags for model in tag["models"]})
        of_scope = []
        for model in models:
            listing = [tag for tag in tags if model in tag["models"]]
            bounds = {kind: _model_bounds(model, tags, kind, h) for kind in KINDS}
            author, name, variant = _parts(model)
            row = {
                **_day(response),
                "scope": scope,
                "model_id": model,
                "author": author,
                "model": name,
                "variant": variant,
                "task_count": len(listing),
                "top_task": min(listing, key=lambda t: (-t["usage"] * t["models"][model]["usage"], t["tag"]))["tag"],
                **{f"{kind}_share_{end}": float(bounds[kind][end]) for kind in KINDS for end in ("low", "up")},
            }
            of_scope.append((row, bounds))
        rows += _ranked(of_scope, "model_id")
    return rows


def authors(response: Response, h: Fraction = H) -> list[Row]:
    """Return the rows of `author_leaderboard`."""
    rows = []
    for scope, tags in _scopes(response, h).items():
        of_scope = []
        names = {_author(model) for tag in tags for model in tag["models"]}
        for author in sorted(name for name in names if name):
            models = sorted({model for tag in tags for model in tag["models"] if _author(model) == author})
            shares = {model: _model_bounds(model, tags, "usage", h)["share"] for model in models}
            row = {
                **_day(response),
                "scope": scope,
                "author": author,
                "model_count": len(models),
                "top_model": min(models, key=lambda model: (-shares[model], model)),
            }
            of_scope.append((row, {kind: _author_bounds(author, tags, kind, h) for kind in KINDS}))
        rows += _ranked(of_scope, "author")
    return rows


def coverage(response: Response, h: Fraction = H) -> list[Row]:
    """Return the rows of `leaderboard_coverage`."""
    rows = []
    for scope, tags in _scopes(response, h).items():
        models = {model for tag in tags for model in tag["models"]}
        row = {**_day(response), "scope": scope, "model_count": len(models)}
        for kind in KINDS:
            bounds = [_model_bounds(model, tags, kind, h) for model in models]
            row[f"{kind}_attributed"] = float(sum(bound["share"] for bound in bounds))
            row[f"unlisted_{kind}_upper"] = float(sum(tag[kind] * tag["unlisted"][kind][0] for tag in tags))
            line = sum((tag[kind] + h) * tag["unlisted"][kind][1] for tag in tags)
            row[f"unlisted_{kind}_up"] = float(line)
            row[f"{kind}_models_above_unlisted"] = sum(bound["low"] > line for bound in bounds)
        rows.append(row)
    return rows


def percent(share: float) -> str:
    """Return a share as it is shown."""
    return "<0.1%" if 0 < share < 0.0005 else f"{100 * share:.1f}%"


def ranks(row: Mapping[str, Any], measure: str) -> str:
    """Return a row's possible ranks as they are shown."""
    best, worst = row[f"{measure}_rank_best"], row[f"{measure}_rank_worst"]
    return str(best) if best == worst else f"{best}\N{EN DASH}{worst}"


def _scopes(response: Response, h: Fraction) -> dict[str, list[Row]]:
    """Return each scope's tags: `tag`, the tag's `usage` and `token` share of the scope, and its models' shares.

    `unlisted` is the most that a model can have that the tag does not list, of each kind: by the published shares, and
    with `h` as their rounding.
    """
    scopes: dict[str, list[Row]] = {"all": []}
    for task in response["data"]["classifications"]:
        models = {
            model["id"]: {"usage": _exact(model["tag_usage_share"]), "token": _exact(model["tag_token_share"])}
            for model in task["models"]
        }
        unlisted = {kind: (_unlisted(models, kind, Fraction(0)), _unlisted(models, kind, h)) for kind in KINDS}
        for scope, prefix in (("all", ""), (task["macro_category"], "category_")):
            weights = {kind: _exact(task[f"{prefix}{kind}_share"]) for kind in KINDS}
            scopes.setdefault(scope, []).append({"tag": task["tag"], **weights, "models": models, "unlisted": unlisted})
    return {"all": scopes.pop("all"), **dict(sorted(scopes.items()))}


def _model_bounds(model: str, tags: list[Row], kind: str, h: Fraction) -> dict[str, Fraction]:
    """Return a model's attributed share, its upper bound, and the interval that allows for rounding."""
    share = upper = low = up = Fraction(0)
    for tag in tags:
        weight = tag[kind]
        if model in tag["models"]:
            own = tag["models"][model][kind]
            share += weight * own
            upper += weight * own
            low += max(weight - h, Fraction(0)) * max(own - h, Fraction(0))
            up += (weight + h) * (own + h)
        else:
            published, rounded = tag["unlisted"][kind]
            upper += weight * published
            up += (weight + h) * rounded
    return {"share": share, "upper": upper, "low": low, "up": up}


def _unlisted(models: Mapping[str, Mapping[str, Fraction]], kind: str, h: Fraction) -> Fraction:
    """Return the most that a model can have under a tag that lists only other `models`."""
    shares = [model[kind] for model in models.values()]
    if not shares:
        return Fraction(1)
    left = 1 - sum((share - h for share in shares), Fraction(0))
    if kind == "usage":
        left = min(left, min(shares) + h)
    return max(left, Fraction(0))


def _author_bounds(author: str, tags: list[Row], kind: str, h: Fraction) -> dict[str, Fraction]:
    """Return an author's attributed share, its upper bound, and the interval that allows for rounding.

    Models without an author could be anyone's, so they are not among the others.
    """
    share = upper = low = up = Fraction(0)
    for tag in tags:
        weight = tag[kind]
        own = [figures[kind] for model, figures in tag["models"].items() if _author(model) == author]
        others = [figures[kind] for model, figures in tag["models"].items() if _author(model) not in ("", None, author)]
        share += weight * sum(own)
        upper += weight * max(sum(own), 1 - sum(others))
        low += max(weight - h, Fraction(0)) * sum(max(figure - h, Fraction(0)) for figure in own)
        up += (weight + h) * max(sum(own), 1 - sum(max(figure - h, Fraction(0)) for figure in others))
    return {"share": share, "upper": upper, "low": low, "up": up}


def _ranked(of_scope: list[tuple[Row, dict[str, dict[str, Fraction]]]], name: str) -> list[Row]:
    """Return a scope's rows with their shares and ranks, best rank by requests first."""
    for place, (row, bounds) in enumerate(of_scope):
        others = [other for at, (_, other) in enumerate(of_scope) if at != place]
        for kind, own in bounds.items():
            row[f"{kind}_share"] = float(own["share"])
            row[f"{kind}_share_upper"] = float(own["upper"])
            row[f"{kind}_rank"] = 1 + sum(other[kind]["share"] > own["share"] for other in others)
            row[f"{kind}_rank_best"] = 1 + sum(other[kind]["low"] > own["up"] for other in others)
            row[f"{kind}_rank_worst"] = 1 + sum(other[kind]["up"] > own["low"] for other in others)
    return sorted((row for row, _ in of_scope), key=lambda row: (row["usage_rank"], row[name]))


def _day(response: Response) -> Row:
    data = response["data"]
    return {"as_of": date.fromisoformat(data["as_of"]), "window_days": data["window_days"]}


def _parts(model_id: str) -> tuple[str | None, str, str | None]:
    author, slash, rest = model_id.partition("/")
    model, colon, variant = (rest if slash else model_id).partition(":")
    return (author if slash else None), model, (variant if colon else None)


def _author(model_id: str) -> str | None:
    return _parts(model_id)[0]


def _exact(share: float) -> Fraction:
    return Fraction(str(share))
