"""The largest changes between two days; of a model that one day does not list, the smallest possible change."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Literal

import polars as pl

from orpipeline.leaderboard import DECIMALS


@dataclass(frozen=True)
class Move:
    """A model's change of its share of requests, as a fraction of 1.

    `kind` is `listed` if both days list the model: then `change` compares attributed shares. Otherwise it is `new`,
    `back` (an earlier day listed it) or `gone`, and the model gained or lost at least `change`.
    """

    model_id: str
    change: float
    kind: Literal["listed", "new", "back", "gone"]


def smallest_moves(
    of_day: pl.DataFrame, gone: pl.DataFrame, *, before: date, unlisted: float, unlisted_before: float
) -> list[Move]:
    """Return the models' changes since the day `before`, the largest first, without those that may not have changed.

    `of_day` has the day's `model_id`, `usage_share`, `usage_share_change_7d` and `first_seen`. `gone` has `model_id`
    and `usage_share` of the models that only the day `before` lists. On a day that does not list it, a model has at
    most the bound of unlisted models: `unlisted`, or `unlisted_before`.
    """
    moves = [
        Move(model_id, max(0.0, round(share - unlisted_before, DECIMALS)), "new" if first_seen > before else "back")
        if change is None
        else Move(model_id, change, "listed")
        for model_id, share, change, first_seen in of_day.select(
            "model_id", "usage_share", "usage_share_change_7d", "first_seen"
        ).iter_rows()
    ]
    moves += [
        Move(model_id, min(0.0, round(unlisted - share, DECIMALS)), "gone")
        for model_id, share in gone.select("model_id", "usage_share").iter_rows()
    ]
    return sorted((move for move in moves if move.change), key=lambda move: (-abs(move.change), move.model_id))
