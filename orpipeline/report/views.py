"""What the page shows of each scope by each measure: the headline, the leaders, the changes, and the ranking."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import polars as pl
from markupsafe import Markup

from orpipeline.contracts.rules import ALL, HALF_STEP
from orpipeline.report.certainty import Change, possible_changes
from orpipeline.report.data import ReportData
from orpipeline.report.wording import (
    MEASURES,
    author_name,
    count_text,
    new_or_back,
    percent,
    possible_points,
    rank_range,
    short_day_text,
    window_text,
)
from orpipeline.text import plain

_MACRO_ORDER = ("code", "data", "agent", "general")
_MOST_NAMES = 3
Row = Mapping[str, Any]


@dataclass(frozen=True)
class View:
    """One scope by one measure: `usage` (requests) or `token`."""

    data: ReportData
    scope: str
    label: str
    measure: str

    @property
    def key(self) -> str:
        """The view's id in the page: its place among the scopes is safe in HTML, the scope's key need not be."""
        return f"{list(scopes(self.data)).index(self.scope)}-{self.measure}"

    @property
    def unit(self) -> str:
        """What the shares are shares of: `classified requests`, `code tokens`."""
        return f"{'classified' if self.scope == ALL else self.label.lower()} {MEASURES[self.measure]}"

    @property
    def coverage(self) -> Row:
        """The scope's row of `leaderboard_coverage`."""
        return self.data.coverage[self.scope]

    @property
    def unlisted(self) -> float:
        """The most that a model on no list can have."""
        return float(self.coverage[f"unlisted_{self.measure}_upper"])

    @cached_property
    def rows(self) -> Sequence[Row]:
        """The scope's models, the largest share first, as `_row` describes them."""
        share = f"{self.measure}_share"
        listed = self.data.models.filter(scope=self.scope).sort(share, "model_id", descending=[True, False])
        return [self._row(row) for row in listed.iter_rows(named=True)]

    def _row(self, row: Row) -> Row:
        """Return a model's figures and texts. `above`: whether no unlisted model can have more."""
        names = ("share", "share_upper", "share_low", "rank_best", "rank_worst")
        share, upper, low, best, worst = (row[f"{self.measure}_{name}"] for name in names)
        change, moved = self._changes_by_model.get(row["model_id"]), ""
        if change is not None and row["usage_share_change_7d"] is None:
            moved = new_or_back(row["first_seen"], self.data.compared_day)
        return {
            "id": row["model_id"],
            "name": self.data.name(row["model_id"]),
            "author": author_name(row["author"]),
            "share": share,
            "upper": upper,
            "best": best,
            "ranks": rank_range(best, worst),
            "is_certain": best == worst,
            "above": low > self.coverage[f"unlisted_{self.measure}_up"],
            "change": possible_points(change.low, change.high) if change else "",
            "least": change.least if change else 0.0,
            "moved": moved,
        }

    @property
    def widest(self) -> float:
        """The largest share that a bar or a whisker shows."""
        return max([self.unlisted, *(float(row["upper"]) for row in self.rows)])

    @cached_property
    def above(self) -> int:
        """How many of the first rows no unlisted model can reach."""
        return next((place for place, row in enumerate(self.rows) if not row["above"]), len(self.rows))

    @property
    def first(self) -> str:
        """What is known about first place: `certain`, `certain among listed models`, or how many could be first."""
        rivals = self._rivals
        if not rivals:
            return "certain" if self.above else "certain among listed models"
        return f"{len(rivals) + 1} could be first"

    @property
    def _rivals(self) -> Sequence[Row]:
        return [row for row in self.rows[1:] if row["best"] == 1]

    @property
    def headline(self) -> Markup:
        """The day's first fact as a sentence to quote."""
        day, window = self.data.as_of, window_text(self.data.as_of, self.data.snapshot["window_days"])
        where = "In the demo\N{RIGHT SINGLE QUOTATION MARK}s made-up data" if self.data.is_demo else "On OpenRouter"
        if not self.rows:
            return Markup("{}, the task lists of {} name no model for {}.").format(where, day, self.unit)
        who = [
            Markup("{} {}").format(isolated(row["name"]), isolated(f"({row['author']})"))
            for row in self.rows
            if round(self.rows[0]["share"] - row["share"], 12) == 0
        ]
        each = " each" if len(who) > 1 else ""
        share = percent(self.rows[0]["share"])
        return Markup("{}, {}{} handled at least {} of {}, {}.").format(
            where, _listed(who), each, share, self.unit, window
        )

    @property
    def first_place(self) -> Markup:
        """Who else could be first, as a sentence."""
        if not self.rows:
            return Markup("")
        if not self._rivals:
            ending = "<b>certain</b>." if self.above else "certain among the listed models only."
            return Markup("First place is ") + Markup(ending)  # noqa: S704 - our own words
        who = _listed([isolated(row["name"]) for row in self._rivals], "or")
        unlisted = "" if self.above else ", or a model on no list"
        return Markup("First place is <b>not certain</b>: it could be {}{}.").format(who, unlisted)

    @cached_property
    def changes(self) -> Sequence[Change]:
        """The possible changes over 7 days; none without the day to compare with."""
        return possible_changes(
            self.data.models.filter(scope=self.scope),
            self.data.gone.filter(scope=self.scope),
            measure=self.measure,
            unlisted_up=self.coverage[f"unlisted_{self.measure}_up"],
        )

    @cached_property
    def _changes_by_model(self) -> Mapping[str, Change]:
        return {change.model_id: change for change in self.changes if change.share is not None}

    @property
    def certain(self) -> Sequence[Change]:
        """The certain changes, the largest first."""
        return [change for change in self.changes if change.least]

    @property
    def changes_text(self) -> str:
        """The changes that are not certain, as a sentence; why there are none, without the day to compare with."""
        since = short_day_text(self.data.compared_day)
        if not self.data.has_changes:
            first = self.data.compared_day < self.data.days[0]
            why = "is before the first recorded day" if first else "is missing"
            return f"Changes compare with the day 7 days before, {since}, which {why}."
        unsure = len(self.changes) - len(self.certain)
        if not self.certain:
            return f"No share has certainly changed since {since}: each of {count_text(unsure, 'change')} may be noise."
        more = "more change" if unsure == 1 else "more changes"
        return f"{unsure:,} {more} may be noise: rounding, or a list that names the model on one of the two days only."

    @property
    def authors(self) -> Sequence[Row]:
        """The sums of the authors' listed models, the largest first; as rows of `author_leaderboard`."""
        share = f"{self.measure}_share"
        listed = self.data.authors.filter(scope=self.scope).sort(share, "author", descending=[True, False])
        return listed.to_dicts()


def scopes(data: ReportData) -> dict[str, str]:
    """Return the scopes of the day's leaderboard and their labels, `all` first."""
    labels = dict(data.macros.select("key", "label").rows())
    keys = set(data.models["scope"]) - {ALL}
    return {ALL: "All tasks"} | {key: plain(labels.get(key, key)) for key in sorted(keys, key=macro_place)}


def macro_place(key: str) -> tuple[int, str]:
    """Return the sort key of a macro-category: the documented ones first, then new ones by key."""
    return (_MACRO_ORDER.index(key) if key in _MACRO_ORDER else len(_MACRO_ORDER), key)


def views(data: ReportData) -> list[View]:
    """Return the views of every scope by requests and by tokens; the first is the page's default."""
    return [View(data, scope, label, measure) for scope, label in scopes(data).items() for measure in MEASURES]


def tasks(data: ReportData) -> list[Row]:
    """Return the tasks, those with most requests first, with their lists and the first two models by each measure.

    A list has the top models by requests, so an unlisted model has at most the requests of the last listed one. It can
    have all tokens that the listed ones leave: `unlisted` is the most that one can have.
    """
    labels, found = scopes(data), list[Row]()
    lists = {str(tag): rows for (tag,), rows in data.task_models.partition_by("tag", as_dict=True).items()}
    for task in data.tasks.iter_rows(named=True):
        models = [
            {
                "id": row["model_id"],
                "name": data.name(row["model_id"]),
                "author": author_name(row["author"]),
                "usage": row["tag_usage_share"],
                "token": row["tag_token_share"],
                "ranks": rank_range(row["usage_rank_best"], row["usage_rank_worst"]),
                "best": {measure: row[f"{measure}_rank_best"] for measure in MEASURES},
            }
            for row in lists.get(task["tag"], data.task_models.clear()).sort("position").iter_rows(named=True)
        ]
        found.append(
            {
                "tag": task["tag"],
                "label": plain(task["display_name"]),
                "macro": labels.get(task["macro_category"], plain(task["macro_category"])),
                "usage": task["usage_share"],
                "token": task["token_share"],
                "models": models,
                "rest": {measure: max(0.0, round(1 - task[f"{measure}_listed"], 6)) for measure in MEASURES},
                "leads": {measure: _lead(models, measure) for measure in MEASURES},
            }
        )
    return found


def _lead(models: Sequence[Row], measure: str) -> Row:
    """Return a task's first two models by a measure, and what is known about first place."""
    ordered = sorted(models, key=lambda model: -model[measure])
    rivals = sum(model["best"][measure] == 1 for model in models)
    # By requests, an unlisted model has at most the smallest listed share.
    left = 1 - sum(max(0.0, model["token"] - HALF_STEP) for model in models)
    is_open = measure == "token" and bool(models) and round(left - ordered[0]["token"] + HALF_STEP, 9) >= 0
    first = f"{rivals} could be first" if rivals > 1 else "certain among listed" if is_open else "certain"
    return {"models": ordered[:2], "first": first if models else "", "is_certain": first == "certain"}


def task_leaders(found: Sequence[Row], measure: str) -> list[tuple[str, int, int]]:
    """Return the models that lead tasks: name, how many they lead, and how many of these for certain."""
    counts: dict[tuple[str, str], list[bool]] = {}
    for task in found:
        lead = task["leads"][measure]
        if lead["models"]:
            first = lead["models"][0]
            counts.setdefault((first["id"], first["name"]), []).append(lead["is_certain"])
    found_counts = [(name, len(led), sum(led)) for (_, name), led in counts.items()]
    return sorted(found_counts, key=lambda one: (-one[1], -one[2], one[0]))


def movements(data: ReportData, scope: str) -> tuple[list[str], list[str]]:
    """Return the models that the scope's lists name since the day to compare with, and those no longer named."""
    is_new = pl.col("usage_share_change_7d").is_null() & pl.col("usage_share_change_7d_low").is_not_null()
    found = data.models.filter(is_new, scope=scope), data.gone.filter(scope=scope)
    fresh, gone = ([data.name(one) for one in rows.sort("usage_share", descending=True)["model_id"]] for rows in found)
    return fresh, gone


def isolated(name: str) -> Markup:
    """Return a name as HTML; letters that run from right to left do not move the text around it."""
    return Markup("<bdi>{}</bdi>").format(name)


def _listed(names: Sequence[str], word: str = "and") -> Markup:
    """Return names as `a, b and c`, or as `a, b, c and 4 others`."""
    others = len(names) - _MOST_NAMES
    shown = [*names[:_MOST_NAMES], f"{others} {'other' if others == 1 else 'others'}"] if others > 0 else list(names)
    last = shown.pop()
    return Markup("{} {} {}").format(Markup(", ").join(shown), word, last) if shown else Markup("{}").format(last)
