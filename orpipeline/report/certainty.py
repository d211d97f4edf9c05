"""What a ranking says for certain: which rows have an unknown order, and which shares have changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:  # the commands' `--help` does not need it
    import polars as pl


def unknown_group(ranks: Sequence[tuple[int, int]]) -> range:
    """Return the rows of the largest group of three or more whose order is not known; an empty range without one.

    `ranks` are the best and worst possible ranks of all rows, in the order of their shares. A group ends where every
    row so far certainly comes before every later one, so none of its rows has a certain rank.
    """
    start, worst, largest = 0, 0, range(0)
    for end, (_, last) in enumerate(ranks, start=1):
        worst = max(worst, last)
        if worst <= end:
            largest = max(largest, range(start, end), key=len)
            start = end
    return largest if len(largest) >= 3 else range(0)  # two rows with the same possible ranks need no more words


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
    from orpipeline.leaderboard import DECIMALS

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
