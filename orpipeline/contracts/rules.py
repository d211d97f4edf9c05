"""The rules that an answer must hold to, each with the sentence that it rests on.

Tolerances follow from the published rounding. Every published share is rounded to 3 decimals, so it may be off
by up to `HALF_STEP` = 0.0005; a sum of n published shares may then be off by n x 0.0005, and by 0.0005 more
where it is held against another published share. A quotient is held as a product: where c, M and u are
published and c = u / M holds before rounding, |c x M - u| <= 0.0005 x (1 + c + M) + 3 x 0.0005^2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import polars as pl

HALF_STEP = 0.0005
"""Half of the last published decimal: how far a published share may lie from the true one."""
FLOAT_SLACK = 1e-9
"""What adding doubles may add to a tolerance; far below any figure that is published."""

Severity = Literal["ERROR", "WARN"]
Table = Literal[
    "raw_task_classifications", "task_classifications", "macro_categories", "task_models", "model_leaderboard"
]


@dataclass(frozen=True)
class Rule:
    """One rule. An `ERROR` refuses the day, for a figure would be wrong; a `WARN` lets it through."""

    name: str
    description: str
    severity: Severity
    tables: tuple[Table, ...]
    """The tables (or the raw asset) whose rows can break it."""


def sum_tolerance(figures: pl.Expr, *, stated: bool) -> pl.Expr:
    """Return how far a sum of that many published figures may be off.

    `stated` says whether it is held against a published figure, rounded itself, or against an exact one.
    """
    return HALF_STEP * (figures + int(stated)) + FLOAT_SLACK


_TABLES: tuple[Table, ...] = ("task_classifications", "macro_categories", "task_models")

REQUIRED_FIELDS = Rule(
    "required_fields",
    "Every field that the API documents is there and has its documented type.",
    "ERROR",
    ("raw_task_classifications", *_TABLES),
)
AS_OF = Rule(
    "as_of_is_the_partition",
    "`as_of` is a date, and it is the day of the partition.",
    "ERROR",
    ("raw_task_classifications",),
)
WINDOW = Rule(
    "window_is_as_asked",
    "`window_days` is 7, as asked for.",
    "ERROR",
    ("raw_task_classifications",),
)
NOT_EMPTY = Rule(
    "has_classifications",
    "The answer has at least one classification.",
    "ERROR",
    ("raw_task_classifications",),
)
SIZE = Rule(
    "has_a_plausible_size",
    "The answer has at most 1,000 tags and 20,000 listed models (a real one has 29 and 290).",
    "ERROR",
    ("raw_task_classifications",),
)
SHARES = Rule(
    "shares_are_fractions",
    "Every share is a finite number from 0 to 1.",
    "ERROR",
    _TABLES,
)
NO_OTHER = Rule(
    "no_other_bucket",
    "Nothing is called `other`: shares are of classified traffic, and the `other` bucket is left out of it.",
    "ERROR",
    _TABLES,
)
UNIQUE = Rule(
    "keys_are_unique",
    "No tag, macro-category, or model under a tag is listed twice.",
    "ERROR",
    _TABLES,
)
TOTALS = Rule(
    "totals_are_one",
    "Shares sum to 1 over the tags (within n x 0.0005, for n tags rounded to 3 decimals).",
    "ERROR",
    ("task_classifications",),
)
CATEGORY_TOTALS = Rule(
    "category_totals_are_one",
    "Category shares sum to 1 within a macro-category (within n x 0.0005 for its n tags).",
    "ERROR",
    ("task_classifications",),
)
CATEGORY_SHARES = Rule(
    "category_shares_agree",
    "A tag's category share is its share divided by its macro-category's (within what rounding allows).",
    "ERROR",
    ("task_classifications",),
)
MACRO_LISTED = Rule(
    "macro_category_is_listed",
    "Every tag's macro-category is one of the listed macro-categories.",
    "ERROR",
    ("task_classifications",),
)
MACRO_PREFIX = Rule(
    "macro_category_follows_prefix",
    "A tag's macro-category comes from its prefix: `code`, `data`, `agent`, else `general`.",
    "ERROR",
    ("task_classifications",),
)
MACRO_SUMS = Rule(
    "macro_shares_are_sums",
    "A macro-category's shares are the sums over its tags (within (n + 1) x 0.0005 for its n tags).",
    "ERROR",
    ("macro_categories",),
)
MODEL_SUMS = Rule(
    "model_shares_fit_under_one",
    "The shares of the models listed under a tag sum to at most 1 (plus n x 0.0005 for n models).",
    "ERROR",
    ("task_models",),
)
BOUNDS = Rule(
    "bounds_hold",
    "Attributed share <= upper bound, and best rank <= rank <= worst rank, for every model and scope.",
    "ERROR",
    ("model_leaderboard",),
)

NO_UNKNOWN_FIELDS = Rule(
    "no_unknown_fields",
    "The answer has no field that is not documented. New fields may come; they are kept in the archive.",
    "WARN",
    ("raw_task_classifications",),
)
ORDER = Rule(
    "sorted_by_usage",
    "Tags, and the models under a tag, come sorted by usage share, largest first.",
    "WARN",
    ("task_classifications", "task_models"),
)
SAME_TAGS = Rule(
    "tags_as_the_day_before",
    "No tag has appeared that no earlier day had, and none has gone since the day before.",
    "WARN",
    ("task_classifications",),
)
KNOWN_MACROS = Rule(
    "macro_categories_are_known",
    "Every macro-category has been seen on an earlier day.",
    "WARN",
    ("macro_categories",),
)
MODEL_AUTHORS = Rule(
    "model_ids_name_an_author",
    "Every model id reads `author/model` or `author/model:variant`.",
    "WARN",
    ("task_models",),
)

RULES: dict[str, Rule] = {
    rule.name: rule
    for rule in (
        REQUIRED_FIELDS,
        AS_OF,
        WINDOW,
        NOT_EMPTY,
        SIZE,
        SHARES,
        NO_OTHER,
        UNIQUE,
        TOTALS,
        CATEGORY_TOTALS,
        CATEGORY_SHARES,
        MACRO_LISTED,
        MACRO_PREFIX,
        MACRO_SUMS,
        MODEL_SUMS,
        BOUNDS,
        NO_UNKNOWN_FIELDS,
        ORDER,
        SAME_TAGS,
        KNOWN_MACROS,
        MODEL_AUTHORS,
    )
}


@dataclass(frozen=True)
class Check:
    """What is shown of rules that belong together: one asset check, on the table (or the raw asset) `table`.

    Each check costs Dagster's event log three events a run, which is more time than judging takes: so there are
    fewer checks than rules. A failing check's rows name the rule.
    """

    name: str
    table: Table
    description: str
    rules: tuple[Rule, ...]

    @property
    def severity(self) -> Severity:
        """The severity that all of its rules have."""
        return self.rules[0].severity


def _alone(rule: Rule) -> Check:
    return Check(rule.name, rule.tables[0], rule.description, (rule,))


CHECKS: dict[str, Check] = {
    check.name: check
    for check in (
        Check(
            "answer_is_as_asked",
            "raw_task_classifications",
            "`as_of` is the partition's day, `window_days` is 7, there are classifications and not absurdly many, and "
            "every documented field is there with its type.",
            (AS_OF, WINDOW, NOT_EMPTY, SIZE, REQUIRED_FIELDS),
        ),
        Check(
            "nothing_new_or_untidy",
            "raw_task_classifications",
            "No field that is not documented; no tag or macro-category that no earlier day had, no tag gone since the "
            "day before; lists sorted by usage; model ids that name an author.",
            (NO_UNKNOWN_FIELDS, SAME_TAGS, KNOWN_MACROS, ORDER, MODEL_AUTHORS),
        ),
        _alone(SHARES),
        _alone(NO_OTHER),
        _alone(UNIQUE),
        Check(
            TOTALS.name,
            "task_classifications",
            f"{TOTALS.description} {CATEGORY_TOTALS.description}",
            (TOTALS, CATEGORY_TOTALS),
        ),
        _alone(CATEGORY_SHARES),
        Check(
            MACRO_PREFIX.name,
            "task_classifications",
            f"{MACRO_PREFIX.description} {MACRO_LISTED.description}",
            (MACRO_PREFIX, MACRO_LISTED),
        ),
        _alone(MACRO_SUMS),
        _alone(MODEL_SUMS),
    )
}
"""The asset checks that show the rules, by name. Every rule about an answer is in exactly one; `bounds_hold` is about
our own arithmetic, and ends the write instead."""
