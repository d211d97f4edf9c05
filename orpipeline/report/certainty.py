"""Which shares have certainly changed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the commands' `--help` does not need it
    import polars as pl


@dataclass(frozen=True)
class Change:
    """A model's possible change of its share, as fractions of 1: from `low` to `high`. `share`: its newest share.

    `share` is None if no list of the newer day names the model.
    """

    model_id: str
    author: str | None
    low: float
    high: float
    share: float | None

    @property
    def least(self) -> float:
        """The smallest possible gain, or loss below 0; 0 if the share may not have changed."""
        return self.low if self.low > 0 else min(self.high, 0.0)


def possible_changes(models: pl.DataFrame, gone: pl.DataFrame, *, measure: str, unlisted_up: float) -> list[Change]:
    """Return the possible change of each model of a scope over 7 days, the largest certain ones first.

    `models` has the newer day's rows of `model_leaderboard` with the bounds of `model_trends`; `gone` has the rows of
    models that only the earlier day lists. On the newer day such a model has at most `unlisted_up`.
    """
    share = f"{measure}_share"
    listed = models.select("model_id", "author", f"{share}_change_7d_low", f"{share}_change_7d_high", share)
    changes = [Change(*row) for row in listed.iter_rows() if row[2] is not None]
    changes += [
        Change(model_id, author, -up, unlisted_up - low, None)
        for model_id, author, low, up in gone.select("model_id", "author", f"{share}_low", f"{share}_up").iter_rows()
    ]
    return sorted(changes, key=lambda change: (-abs(change.least), change.model_id))


def floor_points(change: float) -> float:
    """Return a positive difference of shares in percentage points, rounded down: to 0.1, or to one digit below."""
    points = round(100 * change, 8)
    digits = 1 if points >= 0.1 else -math.floor(math.log10(points))
    return math.floor(points * 10.0**digits + 1e-9) / 10.0**digits
