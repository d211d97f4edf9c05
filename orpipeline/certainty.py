"""How far the order of a ranking is known, from the possible ranks of its rows."""

from __future__ import annotations

from collections.abc import Sequence

Ranks = tuple[int, int]
"""The best and the worst possible rank of a row."""
_SMALLEST_GROUP = 3  # two rows with the same possible ranks need no more words


def unknown_group(ranks: Sequence[Ranks]) -> range:
    """Return the rows of the largest group of three or more whose order is not known; an empty range without one.

    `ranks` are those of all rows, in the order of their shares. A group ends where every row so far certainly comes
    before every later one, so none of its rows has a certain rank.
    """
    start, worst, largest = 0, 0, range(0)
    for end, (_, last) in enumerate(ranks, start=1):
        worst = max(worst, last)
        if worst <= end:
            largest = max(largest, range(start, end), key=len)
            start = end
    return largest if len(largest) >= _SMALLEST_GROUP else range(0)


def certain_count(ranks: Sequence[Ranks]) -> int:
    """Return how many rows have one possible rank only."""
    return sum(best == worst for best, worst in ranks)
