"""The rules for a response, each stated once, and the asset checks that show them.

Tolerances follow from the published rounding. OpenRouter rounds every share to 3 decimals, so a published share is
within `HALF_STEP` = 0.0005 of the true one. A sum of n published shares is then within n x 0.0005 of the true sum, and
within 0.0005 more of a published figure. A quotient is checked as a product: if c, M and u are published and c = u / M
before rounding, then |c x M - u| <= 0.0005 x (1 + c + M) + 3 x 0.0005^2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

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
    severity: Severity = "ERROR"


REQUIRED_FIELDS = Rule("required_fields", "Every field that the API documents is present and has its documented type.")
JSON_KEYS = Rule("json_keys_are_unique", "No JSON object of the response has the same key twice.")
AS_OF = Rule("as_of_is_the_partition", "`as_of` is the partition's day.")
WINDOW = Rule("window_is_7_days", "`window_days` is 7.")
NOT_EMPTY = Rule("has_classifications", "The response has at least one classification.")
SIZE = Rule(
    "has_a_plausible_size",
    "The response has at most 1,000 tags, 20,000 listed models and 1,000 macro-categories. "
    "(A typical one has 29, 290 and 4.)",
)
SHARES = Rule("shares_are_fractions", "Every share is a finite number from 0 to 1.")
NO_OTHER = Rule(
    "no_other_bucket",
    "Nothing is called `other`. Shares are of classified traffic, which excludes the `other` bucket.",
)
NOT_ALL = Rule(
    "all_is_not_a_category",
    f"No macro-category is called `{ALL}`, in any spelling: that is the leaderboard's scope of all traffic.",
)
UNIQUE = Rule(
    "keys_are_unique", "No tag, macro-category, model under a tag, or model of the catalogue is listed twice."
)
NAMED = Rule("keys_are_not_empty", "No tag, macro-category or model id is empty or only spaces.")
DISTINCT = Rule(
    "keys_are_distinct",
    "No two tags, macro-categories or model ids of a day are the same after trimming, case folding and Unicode's NFKC.",
)
TOTALS = Rule(
    "totals_are_one",
    "Shares sum to 1 over the tags (within n x 0.0005 for n tags, because shares are rounded to 3 decimals).",
)
CATEGORY_TOTALS = Rule(
    "category_totals_are_one",
    "Category shares sum to 1 within a macro-category (within n x 0.0005 for its n tags).",
)
CATEGORY_SHARES = Rule(
    "category_shares_agree",
    "A tag's category share is its share divided by its macro-category's share (within the rounding).",
)
MACRO_LISTED = Rule("macro_category_is_listed", "Every tag's macro-category is one of the listed macro-categories.")
MACRO_PREFIX = Rule(
    "macro_category_follows_prefix",
    "A tag's prefix decides its macro-category: `code`, `data` or `agent`, otherwise `general`.",
)
MACRO_SUMS = Rule(
    "macro_shares_are_sums",
    "A macro-category's shares are the sums over its tags (within (n + 1) x 0.0005 for its n tags).",
)
MODEL_SUMS = Rule(
    "model_shares_fit_under_one",
    "The shares of the models listed under a tag sum to at most 1 (plus n x 0.0005 for n models).",
)
BOUNDS = Rule(
    "bounds_hold",
    "For every row of a leaderboard: 0 <= low <= share <= upper bound <= up, and best rank <= rank <= worst rank.",
)
PRICES = Rule(
    "prices_are_not_negative", "Every list price of the catalogue is a finite number of USD, and not negative."
)
PLAUSIBLE_COUNT = Rule("has_a_plausible_count", "The catalogue has 1 to 20,000 models.")
NO_UNKNOWN_FIELDS = Rule(
    "no_unknown_fields",
    "The response has documented fields only. New fields are accepted, and the archive has them.",
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
USUAL_NAMES = Rule(
    "names_are_usual",
    "Keys have at most 200 characters, are in Unicode's normal form C, and have no control or invisible characters and "
    "no space at an end; display names and labels are not empty and have no control characters.",
    "WARN",
)

RULES: dict[str, Rule] = {rule.name: rule for rule in list(vars().values()) if isinstance(rule, Rule)}
"""Every rule, by name."""
