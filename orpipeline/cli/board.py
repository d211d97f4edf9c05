"""What a leaderboard shows, as text: the same words and figures in a terminal's table and in Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any

from orpipeline.report import wording
from orpipeline.report.certainty import unknown_group
from orpipeline.report.wording import (
    author_name,
    count_text,
    new_or_back,
    percent,
    rank_range,
    short_day_text,
    short_names,
    window_text,
)
from orpipeline.text import plain

if TYPE_CHECKING:  # it takes long to import, and `--help` does not need it
    import polars as pl

MEASURES = {words: prefix for prefix, words in wording.MEASURES.items()}
"""The two measures, and the prefix of their columns."""

_OTHER = {"requests": "tokens", "tokens": "requests"}


@dataclass(frozen=True)
class Column:
    """A column of text: its heading, in one or two lines, and a cell for each row.

    `is_name`: its cells start on the left, and can be shortened. `is_extra`: a narrow terminal leaves it out. `style`
    is the terminal's.
    """

    heading: str
    cells: Sequence[str]
    is_name: bool = False
    is_extra: bool = False
    style: str = ""


@dataclass(frozen=True)
class Board:
    """A leaderboard as text, one row for each model or author, the largest share first.

    `ranks`: a number, or the range of possible ranks. `shares`: fractions of 1, for the bars. `columns` are those
    between ranks and shares (names), and `figures` those after them. `notes`: sentences by the number of rows above
    them: what holds for the rows from there on.
    """

    title: str
    lead: str
    is_demo: bool
    ranks: Sequence[str]
    names: Sequence[Column]
    share: Column
    shares: Sequence[float]
    figures: Sequence[Column]
    notes: Mapping[int, str]
    citation: str

    @property
    def columns(self) -> list[Column]:
        """All columns in their order."""
        return [Column("rank", self.ranks), *self.names, self.share, *self.figures]


@dataclass(frozen=True)
class Ranking:
    """The rows of one scope, the largest share of the measure first, and what the lists leave open.

    `rows` have the columns of `model_leaderboard` and `model_trends`, or those of `author_leaderboard`. `coverage` is
    the scope's row of `leaderboard_coverage`. `above`: how many of the first rows certainly have more than any model on
    no list; None for authors. `since`: the day 7 days before, if the tables have it.
    """

    snapshot: Mapping[str, Any]
    scope: str
    by: str
    rows: pl.DataFrame
    coverage: Mapping[str, Any]
    all_models: Sequence[str]
    above: int | None
    since: date | None

    @property
    def measure(self) -> str:
        """The prefix of the measure's columns."""
        return MEASURES[self.by]

    @property
    def as_of(self) -> date:
        """The day."""
        day: date = self.snapshot["as_of"]
        return day


def board_of(ranking: Ranking, top: int) -> Board:
    """Return what the first `top` rows of a ranking show."""
    rows = ranking.rows.head(min(top, len(ranking.rows))).to_dicts()  # polars takes no number above 64 bits
    measure, names = ranking.measure, short_names(ranking.all_models)
    lead, notes = _notes(ranking, len(rows))
    return Board(
        title=_title(ranking),
        lead=lead,
        is_demo=ranking.snapshot["origin"] == "demo",
        ranks=[rank_range(*_ranks(row, measure)) for row in rows],
        names=_names(rows, names, are_authors=ranking.above is None),
        share=Column(ranking.by, [percent(row[f"{measure}_share"]) for row in rows]),
        shares=[row[f"{measure}_share"] for row in rows],
        figures=_figures(ranking, rows, names),
        notes=notes,
        citation=ranking.snapshot["citation"],
    )


def moved(row: Mapping[str, Any], since: date) -> str:
    """Return a model's change since the day `since`, with its direction, in percentage points.

    For a model that `since` does not list: `new`, or `back` if an earlier day lists it.
    """
    change = row["usage_share_change_7d"]
    if change is None:
        return new_or_back(row["first_seen"], since)
    points = f"{abs(change) * 100:.1f}"
    return points if points == "0.0" else f"{'▲' if change > 0 else '▼'}{points}"


def _title(ranking: Ranking) -> str:
    from orpipeline.contracts.rules import ALL  # polars comes with it

    of = "author" if ranking.above is None else "model"
    scope = "all tasks" if ranking.scope == ALL else f"scope {plain(ranking.scope)}"
    window = window_text(ranking.as_of, ranking.snapshot["window_days"])
    return f"Share of classified {ranking.by} by {of}, {scope}, {window}"


def _ranks(row: Mapping[str, Any], measure: str) -> tuple[int, int]:
    return row[f"{measure}_rank_best"], row[f"{measure}_rank_worst"]


def _names(rows: Sequence[Mapping[str, Any]], names: Mapping[str, str], *, are_authors: bool) -> list[Column]:
    authors = Column(
        "author",
        [author_name(row["author"]) for row in rows],
        is_name=True,
        is_extra=not are_authors,
        style="" if are_authors else "dim",
    )
    if are_authors:
        return [authors]
    return [Column("model", [names[row["model_id"]] for row in rows], is_name=True), authors]


def _figures(ranking: Ranking, rows: Sequence[Mapping[str, Any]], names: Mapping[str, str]) -> list[Column]:
    """Return the columns after the share. The change over 7 days is known for models by requests only."""
    figures = [Column("at most", [percent(row[f"{ranking.measure}_share_upper"]) for row in rows], style="dim")]
    if ranking.above is None:
        return [
            *figures,
            Column("models", [str(row["model_count"]) for row in rows]),
            Column("top model", [names[row["top_model"]] for row in rows], is_name=True),
        ]
    other = _OTHER[ranking.by]
    figures.append(Column(other, [percent(row[f"{MEASURES[other]}_share"]) for row in rows]))
    if ranking.since is not None and ranking.by == "requests":
        heading = f"since\n{short_day_text(ranking.since)}"
        figures.append(Column(heading, [moved(row, ranking.since) for row in rows]))
    return figures


def _notes(ranking: Ranking, shown: int) -> tuple[str, dict[int, str]]:
    """Return the sentences above the table, and those before a row: what is not known, and from which row on."""
    attributed = ranking.coverage[f"{ranking.measure}_attributed"]
    models = count_text(ranking.coverage["model_count"], "model")
    lead = [f"The lists attribute {percent(attributed)} of {ranking.by} to {models}."]
    count = len(ranking.rows)
    nouns = "models" if ranking.above is not None else "authors"
    group = unknown_group([_ranks(row, ranking.measure) for row in ranking.rows.iter_rows(named=True)])
    above = count if ranking.above is None else ranking.above
    most = percent(ranking.coverage[f"unlisted_{ranking.measure}_upper"])
    cap = f"a model on no list has at most {most} of {ranking.by}"
    if ranking.above is None:
        lead.append("The rest can belong to any author.")
    elif above == 0:
        lead.append(f"{cap.capitalize()}, so all ranks are among listed models only.")
    notes: dict[int, str] = {}
    if group and len(group) == count:
        lead.append(f"The order of the {nouns} is not known: each row shows its possible ranks.")
    elif group:
        notes[group.start] = f"The order of the next {len(group):,} {nouns} is not known."
    if above > 0:
        listed_only = f"From here on, ranks are among listed models only: {cap}."
        notes[above] = f"{notes[above]} {listed_only}" if above in notes else listed_only
    return " ".join(lead), {place: note for place, note in notes.items() if place < shown}
