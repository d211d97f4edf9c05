"""The rules for an answer, and the asset checks that show them.

Tolerances follow from the published rounding. OpenRouter rounds every share to 3 decimals, so a published share is
within `HALF_STEP` = 0.0005 of the true one. A sum of n published shares is then within n x 0.0005 of the true sum, and
within 0.0005 more of a published figure. A quotient is checked as a product: if c, M and u are published and c = u / M
before rounding, then |c x M - u| <= 0.0005 x (1 + c + M) + 3 x 0.0005^2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import polars as pl

HALF_STEP = 0.0005
"""Half a unit of the last published decimal: the largest distance of a published share from the true one."""
FLOAT_SLACK = 1e-9
"""Added to each tolerance for the error of adding doubles; far below any published figure."""

COMPARED_DAYS = 7
"""Changes compare with the day this many days before."""
ALL = "all"
"""The leaderboard's scope of all classified traffic. The other scopes are the keys of the macro-categories."""

Severity = Literal["ERROR", "WARN"]


@dataclass(frozen=True)
class Rule:
    """One rule. Breaking an `ERROR` rejects the day, because a figure would be wrong; a `WARN` is only reported."""

    name: str
    description: str
    severity: Severity


def sum_tolerance(count: pl.Expr, *, stated: bool) -> pl.Expr:
    """Return how far the sum of `count` published shares may be from what it should equal.

    `stated`: it should equal another published share, which is itself rounded, and not an exact number.
    """
    return HALF_STEP * (count + int(stated)) + FLOAT_SLACK


REQUIRED_FIELDS = Rule(
    "required_fields", "Every field that the API documents is present and has its documented type.", "ERROR"
)
JSON_KEYS = Rule("json_keys_are_unique", "No JSON object of the answer has the same key twice.", "ERROR")
AS_OF = Rule("as_of_is_the_partition", "`as_of` is the partition's day.", "ERROR")
WINDOW = Rule("window_is_7_days", "`window_days` is 7.", "ERROR")
NOT_EMPTY = Rule("has_classifications", "The answer has at least one classification.", "ERROR")
SIZE = Rule(
    "has_a_plausible_size",
    "The answer has at most 1,000 tags, 20,000 listed models and 1,000 macro-categories. "
    "(A typical one has 29, 290 and 4.)",
    "ERROR",
)
SHARES = Rule("shares_are_fractions", "Every share is a finite number from 0 to 1.", "ERROR")
NO_OTHER = Rule(
    "no_other_bucket",
    "Nothing is called `other`. Shares are of classified traffic, which excludes the `other` bucket.",
    "ERROR",
)
NOT_ALL = Rule(
    "all_is_not_a_category",
    f"No macro-category is called `{ALL}`, in any case: that is the leaderboard's scope of all traffic.",
    "ERROR",
)
UNIQUE = Rule("keys_are_unique", "No tag, macro-category, or model under a tag is listed twice.", "ERROR")
NAMES = Rule(
    "names_are_canonical",
    "Every name has 1 to 200 characters, is in Unicode's normal form C, neither starts nor ends with a space, and has "
    "no control or invisible characters and no kind of space but the common one.",
    "ERROR",
)
SPELLING = Rule(
    "names_differ_by_more_than_case",
    "No two tags, macro-categories or model ids of a day differ only in case.",
    "ERROR",
)
TOTALS = Rule(
    "totals_are_one",
    "Shares sum to 1 over the tags (within n x 0.0005 for n tags, because shares are rounded to 3 decimals).",
    "ERROR",
)
CATEGORY_TOTALS = Rule(
    "category_totals_are_one",
    "Category shares sum to 1 within a macro-category (within n x 0.0005 for its n tags).",
    "ERROR",
)
CATEGORY_SHARES = Rule(
    "category_shares_agree",
    "A tag's category share is its share divided by its macro-category's share (within the rounding).",
    "ERROR",
)
MACRO_LISTED = Rule(
    "macro_category_is_listed", "Every tag's macro-category is one of the listed macro-categories.", "ERROR"
)
MACRO_PREFIX = Rule(
    "macro_category_follows_prefix",
    "A tag's prefix decides its macro-category: `code`, `data` or `agent`, otherwise `general`.",
    "ERROR",
)
MACRO_SUMS = Rule(
    "macro_shares_are_sums",
    "A macro-category's shares are the sums over its tags (within (n + 1) x 0.0005 for its n tags).",
    "ERROR",
)
MODEL_SUMS = Rule(
    "model_shares_fit_under_one",
    "The shares of the models listed under a tag sum to at most 1 (plus n x 0.0005 for n models).",
    "ERROR",
)
BOUNDS = Rule(
    "bounds_hold",
    "For every model and scope: 0 <= share <= upper bound, and best rank <= rank <= worst rank.",
    "ERROR",
)
SCOPE_SUMS = Rule(
    "scope_shares_fit_under_one",
    "For every scope of the leaderboard, the models' shares sum to at most 1; with the rounding, to at most "
    "(1 + T x 0.0005) x (1 + n x 0.0005) for T tags that list up to n models.",
    "ERROR",
)

NO_UNKNOWN_FIELDS = Rule(
    "no_unknown_fields",
    "The answer has documented fields only. New fields are accepted, and the archive has them.",
    "WARN",
)
ORDER = Rule("sorted_by_usage", "Tags, and the models under a tag, are sorted by usage share, largest first.", "WARN")
SAME_TAGS = Rule(
    "tags_match_day_before",
    "Every tag is known from an earlier day, and every tag of the day before is present.",
    "WARN",
)
KNOWN_MACROS = Rule("macro_categories_are_known", "Every macro-category is known from an earlier day.", "WARN")
MODEL_AUTHORS = Rule(
    "model_ids_name_an_author", "Every model id has the form `author/model` or `author/model:variant`.", "WARN"
)

RULES: dict[str, Rule] = {
    rule.name: rule
    for rule in (
        REQUIRED_FIELDS,
        JSON_KEYS,
        AS_OF,
        WINDOW,
        NOT_EMPTY,
        SIZE,
        SHARES,
        NO_OTHER,
        NOT_ALL,
        UNIQUE,
        NAMES,
        SPELLING,
        TOTALS,
        CATEGORY_TOTALS,
        CATEGORY_SHARES,
        MACRO_LISTED,
        MACRO_PREFIX,
        MACRO_SUMS,
        MODEL_SUMS,
        BOUNDS,
        SCOPE_SUMS,
        NO_UNKNOWN_FIELDS,
        ORDER,
        SAME_TAGS,
        KNOWN_MACROS,
        MODEL_AUTHORS,
    )
}


@dataclass(frozen=True)
class Check:
    """One asset check, on the table (or the raw asset) `table`, for rules that belong together.

    There are fewer checks than rules because each check adds three events per run to Dagster's event log, which takes
    longer than the validation. The rows of a failing check name the rule.
    """

    name: str
    table: str
    description: str
    rules: tuple[Rule, ...]

    @property
    def severity(self) -> Severity:
        """The severity, which all of its rules share."""
        return self.rules[0].severity


def _of(table: str, *rules: Rule) -> Check:
    """Return a check with the name of its first rule and the descriptions of all."""
    return Check(rules[0].name, table, " ".join(rule.description for rule in rules), rules)


CHECKS: dict[str, Check] = {
    check.name: check
    for check in (
        Check(
            "answer_matches_request",
            "raw_task_classifications",
            "`as_of` is the partition's day, `window_days` is 7, there is a plausible number of classifications, "
            "every documented field is present with its type, and no JSON object has the same key twice.",
            (AS_OF, WINDOW, NOT_EMPTY, SIZE, REQUIRED_FIELDS, JSON_KEYS),
        ),
        Check(
            "nothing_unexpected",
            "raw_task_classifications",
            "No undocumented field, no new tag or macro-category, and no tag missing since the day before; lists are "
            "sorted by usage, and model ids name an author.",
            (NO_UNKNOWN_FIELDS, SAME_TAGS, KNOWN_MACROS, ORDER, MODEL_AUTHORS),
        ),
        _of("task_classifications", SHARES),
        _of("task_classifications", NO_OTHER, NOT_ALL),
        _of("task_classifications", UNIQUE, NAMES, SPELLING),
        _of("task_classifications", TOTALS, CATEGORY_TOTALS),
        _of("task_classifications", CATEGORY_SHARES),
        _of("task_classifications", MACRO_PREFIX, MACRO_LISTED),
        _of("macro_categories", MACRO_SUMS),
        _of("task_models", MODEL_SUMS),
    )
}
"""The asset checks, by name. Every rule for an answer is in exactly one. `bounds_hold` and `scope_shares_fit_under_one`
are rules for our own leaderboard: breaking them stops the write."""
