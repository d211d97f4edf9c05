"""How far the order of a ranking is known, from the possible ranks of its rows."""

from __future__ import annotations

from collections.abc import Sequence

Ranks = tuple[int, int]
"""The best and the worst possible rank of a row."""


def known_until(ranks: Sequence[Ranks]) -> int:
    """Return how many rows come before the largest group of rows whose order is not known.

    `ranks` are those of all rows, in the order of their shares. A group ends where every row so far certainly comes
    before every later one. Without a group of two or more, this is the number of rows.
    """
    start, worst, first, largest = 0, 0, len(ranks), 1
    for count, (_, last) in enumerate(ranks, start=1):
        worst = max(worst, last)
        if worst > count:
            continue
        if count - start > largest:
            first, largest = start, count - start
        start = count
    return first if len(ranks) - start <= largest else start


def certain_count(ranks: Sequence[Ranks]) -> int:
    """Return how many rows have one possible rank only."""
    return sum(best == worst for best, worst in ranks)
