from __future__ import annotations

from datetime import timedelta
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orpipeline.contracts.findings import rejected_days, rejection
from orpipeline.contracts.frames import parse
from orpipeline.contracts.rules import RULES
from orpipeline.contracts.validation import require_bounds, validate
from orpipeline.defs.catalogue import CHECK as CATALOGUE_CHECK
from orpipeline.defs.checks import CHECKS
from orpipeline.errors import InvalidSnapshotError
from orpipeline.leaderboard import leaderboards
from orpipeline.testing import Task, sample_response
from orpipeline.text import plain
from orpipeline_tests.responses import DAY, Bend, macro, tag
from orpipeline_tests.violations import VIOLATIONS, Violation

BEFORE = DAY - timedelta(days=1)


def findings(bend: Bend | None = None) -> list[dict[str, Any]]:
    return validate(parse([(DAY, sample_response(DAY, change=bend))])).to_dicts()


def day_frames(bend: Bend | None = None) -> dict[str, pl.DataFrame]:
    """Return the rows of the tables of one day, but for its source."""
    frames = parse([(DAY, sample_response(DAY, change=bend))])
    tables = leaderboards(frames.task_classifications, frames.task_models)
    return {"macro_categories": frames.macro_categories, **tables}


def test_made_up_responses_break_no_rule() -> None:
    days = [DAY + timedelta(days=n) for n in range(20)]
    assert validate(parse([(day, sample_response(day)) for day in days])).is_empty()


# Violations


@pytest.fixture(scope="module")
def violated() -> dict[str, list[dict[str, Any]]]:
    """The findings of each violation, by its name: each is in the response of its own day."""
    days = {DAY + timedelta(days=30 + n): violation for n, violation in enumerate(VIOLATIONS)}
    found = validate(parse([(day, sample_response(day, change=one.bend)) for day, one in days.items()])).to_dicts()
    return {
        one.name: [{**f, "row": f["row"].replace(str(day), str(DAY))} for f in found if f["as_of"] == day]
        for day, one in days.items()
    }


@pytest.mark.parametrize("violation", VIOLATIONS, ids=str)
def test_a_violation_is_rejected_with_its_rule_row_and_value(
    violated: dict[str, list[dict[str, Any]]], violation: Violation
) -> None:
    found = violated[violation.name]
    named = [f for f in found if f["rule"] == violation.rule and f["row"].startswith(plain(violation.row))]
    assert named, found
    assert any(plain(violation.found) in f["found"] for f in named), named
    assert {f["severity"] for f in named} == {"ERROR"}


def test_every_rule_is_in_exactly_one_check_and_every_rule_that_rejects_has_a_violation() -> None:
    checked = [rule.name for check in (*CHECKS.values(), CATALOGUE_CHECK) for rule in check.rules]
    assert sorted(checked) == sorted(RULES)
    rejecting = {rule.name for rule in RULES.values() if rule.severity == "ERROR"}
    of_the_catalogue = {rule.name for rule in CATALOGUE_CHECK.rules}
    assert {violation.rule for violation in VIOLATIONS} == rejecting - {"bounds_hold"} - of_the_catalogue


def test_one_report_names_every_violation() -> None:
    def bend(data: dict[str, Any]) -> None:
        tag(data, "math").update(usage_share="0.3", display_name=7)
        tag(data, "translation")["tag"] = "x:other"
        macro(data, "code")["token_share"] = -0.2
        data["window_days"] = 1

    error = rejection(DAY, validate(parse([(DAY, sample_response(DAY, change=bend))])), "raw/a-file")
    rules = set(error.findings["rule"])
    assert {"shares_are_fractions", "required_fields", "no_other_bucket", "window_is_7_days"} <= rules
    for expected in ("2026-10-06", "its tables are unchanged", "window_is_7_days", "raw/a-file", "no_other_bucket"):
        assert expected in str(error)


def test_a_violation_rejects_its_own_day_only() -> None:
    bad = sample_response(DAY, change=lambda data: tag(data, "math").update(usage_share=2))
    found = validate(parse([(DAY, bad), (BEFORE, sample_response(BEFORE))]))
    assert rejected_days(found) == {DAY}


def test_a_share_that_is_missing_is_not_also_reported_as_a_wrong_sum() -> None:
    found = findings(lambda data: tag(data, "math").update(usage_share=None))
    assert [(f["rule"], f["column"]) for f in found] == [("shares_are_fractions", "usage_share")]


@pytest.mark.parametrize(
    ("violation", "table", "column"),
    [
        ("the total is not 1", "task_classifications", "usage_share"),
        ("a category's total is not 1", "task_classifications", "category_token_share"),
        ("code under general", "task_classifications", "macro_category"),
        ("a tag listed twice", "task_classifications", "tag"),
        ("a model listed twice under a tag", "task_models", "model_id"),
        ("a macro-category's share is not the sum", "macro_categories", "usage_share"),
        ("no display_name", "task_classifications", "display_name"),
    ],
)
def test_a_finding_names_the_table_and_column_that_its_rule_is_about(
    violated: dict[str, list[dict[str, Any]]], violation: str, table: str, column: str
) -> None:
    (rule,) = (v.rule for v in VIOLATIONS if v.name == violation)
    places = {(f["table"], f["column"]) for f in violated[violation] if f["rule"] == rule}
    assert (table, column) in places


# Rounding


@pytest.mark.parametrize(("off", "is_rejected"), [(0.014, False), (-0.014, False), (0.016, True), (-0.016, True)])
def test_a_total_is_rejected_if_29_rounded_shares_cannot_have_it(off: float, is_rejected: bool) -> None:
    # 29 shares rounded to 3 decimals: the sum may be off by 29 x 0.0005 = 0.0145.
    def bend(data: dict[str, Any]) -> None:
        total = sum(task["usage_share"] for task in data["classifications"])
        tag(data, "classification_tagging")["usage_share"] += 1 + off - total

    assert ("totals_are_one" in {f["rule"] for f in findings(bend)}) == is_rejected


@given(st.lists(st.tuples(st.floats(0.001, 1), st.floats(0.001, 1)), min_size=4, max_size=30))
def test_rounding_true_figures_never_rejects_a_day(weights: list[tuple[float, float]]) -> None:
    def rounded(data: dict[str, Any]) -> None:  # the sample rounds what it derives from these shares
        for task in data["classifications"]:
            task.update({share: round(task[share], 3) for share in ("usage_share", "token_share")})

    usage, tokens = (sum(of) for of in zip(*weights, strict=True))
    tasks = [
        Task(f"{('code:', 'data:', 'agent:', '')[n % 4]}task_{n}", of_usage / usage, of_tokens / tokens)
        for n, (of_usage, of_tokens) in enumerate(weights)
    ]
    found = validate(parse([(DAY, sample_response(DAY, tasks, change=rounded))]))
    assert rejected_days(found) == set(), found.to_dicts()


@pytest.mark.parametrize(("share", "broken"), [(0.0, []), (0.1, [("macro_shares_are_sums", "media")])])
def test_a_macro_category_without_tags_has_no_share(share: float, broken: list[tuple[str, str]]) -> None:
    def bend(data: dict[str, Any]) -> None:
        data["macro_categories"].append({"key": "media", "label": "Media", "usage_share": share, "token_share": 0.0})

    assert [(f["rule"], f["row"]) for f in findings(bend)] == broken


# Warnings


@pytest.mark.parametrize(
    ("bend", "rule", "row"),
    [
        (lambda data: data.update(note="x"), "no_unknown_fields", "data.note"),
        (lambda data: tag(data, "math").update(trend=1), "no_unknown_fields", "data.classifications[].trend"),
        (lambda data: data["classifications"].reverse(), "sorted_by_usage", "code:devops_config"),
        (lambda data: tag(data, "math")["models"].reverse(), "sorted_by_usage", "math / "),
        (
            lambda data: tag(data, "math")["models"][0].update(id="nameless"),
            "model_ids_name_an_author",
            "math / nameless",
        ),
    ],
)
def test_unexpected_but_valid_content_is_a_warning(bend: Bend, rule: str, row: str) -> None:
    found = findings(bend)
    assert {f["severity"] for f in found} == {"WARN"}
    assert any(f["rule"] == rule and (f["row"].startswith(row) or f["column"] == row) for f in found), found


# Names

USUAL = [
    *("\u6771\u4eac/\u5e02\u5834", "\u05e9\u05dc\u05d5\u05dd", "\u0939\u093f\u0928\u094d\u0926\u0940", "\u00e9t\u00e9"),
    *("a:b/c.d-e+f_9 @#1", "a  b", "x" * 198, "another", "brother:x", "code:others_list", "x/otherworld-2", "small"),
    *("a/'; DROP TABLE x; --", "a/<img src=x onerror=alert(1)>", "a/../../x", "a/$(id) %s {0}"),
]
UNUSUAL_KEYS = [
    *(" a", "b ", "\tc", "d\n", "a\x00b", "a\x1b[0m", "a\x85b", "a\x7f", "x" * 201),
    *("a\u00a0b", "c\u3000d", "a\u2028b", "a\u2029b"),  # spaces and separators
    *("\u3164", "\u115f", "\u2800", "a\u00adb", "a\u034fb", "a\ufe0f", "a\U000e0100"),  # not drawn
    *("\u200b", "a\u2060", "a\u200db", "a\u202eb", "\ufeffa", "a\U000e0041"),  # formats
    *("a\ue000", "a\uffff", "a\u0378"),  # private, never a character, not assigned
    *("e\u0301", "\u212a", "\uac00\u11a8"),  # not in the normal form C
]
UNUSUAL_TEXTS = ["", "  ", "a\nb", "a\x00b", "a\x1b[0m", "a\u2028b"]
USUAL_TEXTS = ["\U0001f469\u200d\U0001f4bb", "\u2764\ufe0f", "cafe\u0301", "a\u200bb", " Math ", "x" * 500, *USUAL]


def named(keys: list[str], texts: list[str]) -> Bend:
    """Return a bend that gives these keys to models, and these texts to tasks and macro-categories."""

    def bend(data: dict[str, Any]) -> None:
        models = [model for task in data["classifications"] for model in task["models"]]
        for places, field, names in (
            (models, "id", keys),
            (data["classifications"], "display_name", texts),
            (data["macro_categories"], "label", texts),
        ):
            for place, name in zip(places, names, strict=False):
                place[field] = name

    return bend


def test_usual_names_of_any_script_and_kind_and_any_visible_text_break_no_rule() -> None:
    assert findings(named([f"a/{name}" for name in USUAL], USUAL_TEXTS)) == []


def test_unusual_names_are_warnings_and_are_shown_as_escapes() -> None:
    found = [f for f in findings(named(UNUSUAL_KEYS, UNUSUAL_TEXTS)) if f["rule"] != "model_ids_name_an_author"]
    assert {(f["rule"], f["severity"]) for f in found} == {("names_are_usual", "WARN")}
    shown = {column: [f["found"] for f in found if f["column"] == column] for column in ("model_id", "display_name")}
    assert len(shown["model_id"]) == len(UNUSUAL_KEYS)
    assert len(shown["display_name"]) == len(UNUSUAL_TEXTS)
    assert r'"a\u200db"' in shown["model_id"]
    text = "".join(f["row"] + f["found"] for f in found)
    assert plain(text) == text


def test_a_rejection_shows_invisible_characters_as_escapes() -> None:
    body = sample_response(DAY, change=lambda data: tag(data, "math").update(tag="o\u202ether\u3164"))
    message = str(rejection(DAY, validate(parse([(DAY, body)])), "raw"))
    assert r"o\u202ether\u3164" in message
    assert plain(message) == message


# Tables


OUTSIDE: list[dict[str, pl.Expr]] = [
    {"usage_rank_best": pl.col("usage_rank") + 1},
    {"token_rank_worst": pl.col("token_rank") - 1},
    {"usage_share": pl.col("usage_share_upper") + 1e-9},
    {"token_share": pl.lit(-0.001)},
    {"token_share": pl.lit(float("nan"))},
    {"usage_share_upper": pl.lit(float("nan"))},
    {"usage_share_upper": pl.lit(float("inf"))},
]
OUTSIDE_OF_STORED = [{"token_share_low": pl.col("token_share") + 1e-9}, {"usage_share_up": pl.col("usage_share") - 1}]


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("author_leaderboard", OUTSIDE[0]),
        *(("model_leaderboard", changed) for changed in OUTSIDE + OUTSIDE_OF_STORED),
    ],
    ids=lambda part: part[:6] if isinstance(part, str) else " ".join(part),
)
def test_a_leaderboard_is_rejected_for_a_share_or_rank_outside_its_bounds(
    name: str, changed: dict[str, pl.Expr]
) -> None:
    board = day_frames()[name]
    with pytest.raises(InvalidSnapshotError, match=r"bounds_hold|required_fields"):  # NaN is a missing figure
        require_bounds(name, board.with_columns(**changed))
    with pytest.raises(InvalidSnapshotError, match="keys_are_unique"):
        require_bounds(name, pl.concat([board, board.head(1)]))
