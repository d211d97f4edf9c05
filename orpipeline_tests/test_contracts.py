from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orpipeline.contracts.findings import InvalidSnapshotError
from orpipeline.contracts.judgement import Seen, check_scopes, check_table, rejected_days, rejection, validate
from orpipeline.contracts.rules import CHECKS, RULES
from orpipeline.contracts.tables import TABLES
from orpipeline.leaderboard import rank
from orpipeline.openrouter.frames import parse
from orpipeline.testing import sample_answer
from orpipeline.text import plain
from orpipeline_tests.answers import DAY, Bend, macro, tag
from orpipeline_tests.violations import VIOLATIONS, Violation


def findings(bend: Bend | None = None, day: date = DAY, seen: Seen | None = None) -> list[dict[str, Any]]:
    return validate(parse([(day, sample_answer(day, change=bend))]), seen).to_dicts()


def test_made_up_answers_break_no_rule() -> None:
    days = [DAY + timedelta(days=n) for n in range(60)]
    found = validate(parse([(day, sample_answer(day)) for day in days]))
    assert found.is_empty()


def test_the_answers_that_an_older_version_accepted_break_no_rule() -> None:
    folders = sorted((Path(__file__).parent / "version_0_1" / "raw").glob("2026-*/r*"))
    bodies = [
        (
            date.fromisoformat(folder.parent.name),
            gzip.decompress((folder / "task_classifications.json.gz").read_bytes()),
        )
        for folder in folders
    ]
    assert len(bodies) == 5
    assert [validate(parse([body])).to_dicts() for body in bodies] == [[]] * 5


@pytest.mark.parametrize("violation", VIOLATIONS, ids=str)
def test_a_violation_is_rejected_with_its_rule_row_and_value(violation: Violation) -> None:
    found = findings(violation.bend)
    named = [f for f in found if f["rule"] == violation.rule and f["row"].startswith(violation.row)]
    assert named, found
    assert any(violation.found in f["found"] for f in named), named
    assert {f["severity"] for f in named} == {"ERROR"}


def test_every_rule_that_rejects_an_answer_has_a_violation() -> None:
    tested = {violation.rule for violation in VIOLATIONS}
    # These two are about our leaderboard, not about an answer.
    of_the_leaderboard = {"bounds_hold", "scope_shares_fit_under_one"}
    assert tested == {rule.name for rule in RULES.values() if rule.severity == "ERROR"} - of_the_leaderboard


def test_every_rule_for_an_answer_is_in_exactly_one_check() -> None:
    checked = [rule.name for check in CHECKS.values() for rule in check.rules]
    assert sorted([*checked, "bounds_hold", "scope_shares_fit_under_one"]) == sorted(RULES)


def test_one_report_names_every_violation() -> None:
    def bend(data: dict[str, Any]) -> None:
        tag(data, "math").update(usage_share="0.3", display_name=7)
        tag(data, "translation")["tag"] = "x:other"
        macro(data, "code")["token_share"] = -0.2
        data["window_days"] = 1

    error = rejection(DAY, validate(parse([(DAY, sample_answer(DAY, change=bend))])), "raw/2026-10-06/r1")
    rules = set(error.findings["rule"])
    assert {"shares_are_fractions", "required_fields", "no_other_bucket", "window_is_7_days"} <= rules
    for expected in (
        "2026-10-06",
        "its tables are unchanged",
        "window_is_7_days",
        "raw/2026-10-06/r1",
        "no_other_bucket",
    ):
        assert expected in str(error)


def test_a_violation_rejects_its_own_day_only() -> None:
    other = DAY + timedelta(days=1)
    bad = sample_answer(DAY, change=lambda data: tag(data, "math").update(usage_share=2))
    found = validate(parse([(DAY, bad), (other, sample_answer(other))]))
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
def test_a_finding_names_the_table_and_column_that_its_rule_is_about(violation: str, table: str, column: str) -> None:
    (wanted,) = (v for v in VIOLATIONS if v.name == violation)
    places = {(f["table"], f["column"]) for f in findings(wanted.bend) if f["rule"] == wanted.rule}
    assert (table, column) in places


@pytest.mark.parametrize("off", [0.014, -0.014])
def test_a_total_that_29_rounded_shares_can_have_is_accepted(off: float) -> None:
    # 29 shares rounded to 3 decimals: the sum may be off by 29 x 0.0005 = 0.0145.
    def bend(data: dict[str, Any]) -> None:
        for task in data["classifications"]:
            task["token_share"] = 0.0
        data["classifications"][0]["token_share"] = 1 + off if off < 0 else 0.9
        data["classifications"][1]["token_share"] = 0.0 if off < 0 else 0.1 + off

    assert "totals_are_one" not in {f["rule"] for f in findings(bend)}


@pytest.mark.parametrize("off", [0.016, -0.016])
def test_a_total_that_29_rounded_shares_cannot_have_is_rejected(off: float) -> None:
    def bend(data: dict[str, Any]) -> None:
        total = sum(task["usage_share"] for task in data["classifications"])
        tag(data, "classification_tagging")["usage_share"] += 1 + off - total

    assert "totals_are_one" in {f["rule"] for f in findings(bend)}


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(0.001, 1), min_size=4, max_size=30), st.lists(st.floats(0.001, 1), min_size=4, max_size=30))
def test_rounding_true_figures_never_rejects_a_day(usage: list[float], tokens: list[float]) -> None:
    size = min(len(usage), len(tokens))
    prefixes = ["code:", "data:", "agent:", ""]
    tags = [f"{prefixes[n % 4]}task_{n}" for n in range(size)]
    shares = {
        "usage_share": {t: v / sum(usage[:size]) for t, v in zip(tags, usage, strict=False)},
        "token_share": {t: v / sum(tokens[:size]) for t, v in zip(tags, tokens, strict=False)},
    }
    keys = ["code", "data", "agent", "general"]
    group = {t: keys[n % 4] for n, t in enumerate(tags)}
    totals = {
        kind: {key: sum(v for t, v in of.items() if group[t] == key) for key in keys} for kind, of in shares.items()
    }
    data = {
        "as_of": DAY.isoformat(),
        "window_days": 7,
        "classifications": [
            {
                "tag": t,
                "display_name": t,
                "macro_category": group[t],
                "models": [],
                **{kind: round(of[t], 3) for kind, of in shares.items()},
                **{f"category_{kind}": round(of[t] / totals[kind][group[t]], 3) for kind, of in shares.items()},
            }
            for t in tags
        ],
        "macro_categories": [
            {"key": key, "label": key, **{kind: round(of[key], 3) for kind, of in totals.items()}} for key in keys
        ],
    }
    found = validate(parse([(DAY, json.dumps({"data": data}).encode())]))
    assert rejected_days(found) == set(), found.to_dicts()


def test_a_macro_category_without_traffic_or_tags_is_accepted() -> None:
    def bend(data: dict[str, Any]) -> None:
        data["macro_categories"].append({"key": "media", "label": "Media", "usage_share": 0.0, "token_share": 0.0})

    assert findings(bend) == []


def test_a_macro_category_with_a_share_but_no_tags_is_rejected() -> None:
    def bend(data: dict[str, Any]) -> None:
        data["macro_categories"].append({"key": "media", "label": "Media", "usage_share": 0.1, "token_share": 0.0})

    assert {(f["rule"], f["row"]) for f in findings(bend)} == {("macro_shares_are_sums", "media")}


def _rename_tag(data: dict[str, Any]) -> None:
    tag(data, "math")["tag"] = "media_ocr"


def test_a_new_tag_and_a_missing_tag_are_warnings() -> None:
    before = parse([(DAY - timedelta(days=1), sample_answer(DAY - timedelta(days=1)))])
    seen = Seen(before.task_classifications.select("as_of", "tag"), before.macro_categories.select("as_of", "key"))
    found = findings(_rename_tag, seen=seen)
    assert {(f["rule"], f["row"], f["severity"], f["found"]) for f in found} == {
        ("tags_match_day_before", "media_ocr", "WARN", "new: no earlier day has it"),
        ("tags_match_day_before", "math", "WARN", "gone: the day before has it"),
    }


def test_nothing_is_new_on_the_first_day() -> None:
    nothing = Seen(
        pl.DataFrame(schema={"as_of": pl.Date, "tag": pl.String}),
        pl.DataFrame(schema={"as_of": pl.Date, "key": pl.String}),
    )
    assert findings(seen=nothing) == []


def test_a_new_macro_category_is_a_warning() -> None:
    def bend(data: dict[str, Any]) -> None:
        macro(data, "data").update(key="media", label="Media")
        for task in data["classifications"]:
            if task["macro_category"] == "data":
                task.update(tag=task["tag"].replace("data:", "media:"), macro_category="media")

    before = parse([(DAY - timedelta(days=1), sample_answer(DAY - timedelta(days=1)))])
    seen = Seen(before.task_classifications.select("as_of", "tag"), before.macro_categories.select("as_of", "key"))
    found = findings(bend, seen=seen)
    assert {f["severity"] for f in found} == {"WARN"}
    assert ("macro_categories_are_known", "media") in {(f["rule"], f["row"]) for f in found}


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


@pytest.mark.parametrize("name", ["another", "brother:x", "code:others_list", "mother", "x/otherworld-2"])
def test_names_with_other_inside_a_word_are_not_the_other_bucket(name: str) -> None:
    def bend(data: dict[str, Any]) -> None:
        tag(data, "math")["models"][0]["id"] = name

    assert "no_other_bucket" not in {f["rule"] for f in findings(bend)}


def test_hostile_names_are_accepted_as_data() -> None:
    def bend(data: dict[str, Any]) -> None:
        models = tag(data, "math")["models"]
        for model, name in zip(
            models,
            ["a/'; DROP TABLE x; --", "a/<img src=x onerror=alert(1)>", "a/../../x", "a/$(id) %s {0}"],
            strict=False,
        ):
            model["id"] = name

    assert findings(bend) == []


@pytest.mark.parametrize(
    "name",
    [
        "\u6771\u4eac/\u5e02\u5834",
        "\u05e9\u05dc\u05d5\u05dd",
        "\u0939\u093f\u0928\u094d\u0926\u0940",
        "\u00e9t\u00e9",
        "a:b/c.d-e+f_9 @#1",
        "a  b",
        "x" * 200,
    ],
)
def test_unusual_names_are_canonical(name: str) -> None:
    def bend(data: dict[str, Any]) -> None:
        tag(data, "math").update(tag=name.replace(":", ";"), display_name=name)
        macro(data, "code")["label"] = name

    assert findings(bend) == []


@pytest.mark.parametrize(
    "name",
    [
        *("", " ", "  ", " a", "a ", "\ta", "a\n", "a\x00b", "a\x1b[0m", "a\x85b", "a\x7f", "x" * 201),
        *("a\u00a0b", "a\u3000b", "a\u2028b", "a\u2029b"),  # spaces and separators
        *("\u3164", "\u115f", "\u2800", "a\u00adb", "a\u034fb", "a\ufe0f", "a\U000e0100"),  # not drawn
        *("\u200b", "a\u2060", "a\u200db", "a\u202eb", "\ufeffa", "a\U000e0041"),  # formats
        *("a\ue000", "a\uffff", "a\u0378"),  # private, never a character, not assigned
        *("e\u0301", "\u212a", "\uac00\u11a8"),  # not in the normal form C
    ],
    ids=ascii,
)
@pytest.mark.parametrize("column", ["display_name", "tag"])
def test_a_name_that_is_not_canonical_is_rejected_and_shown_as_ascii_or_letters(name: str, column: str) -> None:
    body = sample_answer(DAY, change=lambda data: tag(data, "math").update({column: name}))
    found = validate(parse([(DAY, body)]))
    assert (column, "names_are_canonical") in found.select("column", "rule").rows()
    message = str(rejection(DAY, found, "raw"))
    assert plain(message) == message


def test_check_table_returns_the_columns_in_the_tables_order() -> None:
    frame = parse([(DAY, sample_answer(DAY))]).macro_categories
    shuffled = frame.select(reversed(frame.columns))
    assert check_table("macro_categories", shuffled).columns == list(TABLES["macro_categories"].columns())


@pytest.mark.parametrize(
    ("bend", "column", "rule"),
    [
        (lambda frame: frame.with_columns(usage_share=pl.lit(1.5)), "usage_share", "shares_are_fractions"),
        (lambda frame: pl.concat([frame, frame.head(1)]), "key", "keys_are_unique"),
        (lambda frame: frame.with_columns(label=pl.lit(None, dtype=pl.String)), "label", "required_fields"),
        (lambda frame: frame.with_columns(label=pl.lit("\u200b")), "label", "names_are_canonical"),
        (lambda frame: frame.with_columns(pl.col("key").replace("code", "All")), "key", "all_is_not_a_category"),
        (lambda frame: frame.with_columns(label=pl.lit(7)), "label", "required_fields"),
        (lambda frame: frame.drop("label"), "label", "required_fields"),
        (lambda frame: frame.with_columns(note=pl.lit("x")), "note", "required_fields"),
    ],
    ids=["value", "key", "NULL", "name", "scope", "type", "missing column", "extra column"],
)
def test_check_table_rejects_rows_that_break_the_contract(
    bend: Callable[[pl.DataFrame], pl.DataFrame], column: str, rule: str
) -> None:
    frame = bend(parse([(DAY, sample_answer(DAY))]).macro_categories)
    with pytest.raises(InvalidSnapshotError, match=rule) as caught:
        check_table("macro_categories", frame)
    assert column in str(caught.value)
    assert set(caught.value.findings["rule"]) == {rule}


def test_the_error_of_a_table_shows_invisible_characters_as_escapes() -> None:
    frame = parse([(DAY, sample_answer(DAY))]).macro_categories.with_columns(pl.lit("x").alias("label\u200b"))
    with pytest.raises(InvalidSnapshotError, match=r": label\\u200b \(column_in_schema") as caught:
        check_table("macro_categories", frame)
    assert "\u200b" not in str(caught.value)


@pytest.mark.parametrize(
    "changed",
    [
        {"usage_rank_best": pl.col("usage_rank") + 1},
        {"token_rank_worst": pl.col("token_rank") - 1},
        {"usage_share": pl.col("usage_share_upper") + 1e-9},
        {"token_share": pl.lit(-0.001)},
        {"token_share": pl.lit(float("nan"))},
        {"usage_share_upper": pl.lit(float("nan"))},
        {"usage_share_upper": pl.lit(float("inf"))},
    ],
    ids=lambda changed: " ".join(changed),
)
def test_check_table_rejects_a_share_or_rank_outside_its_bounds(changed: dict[str, pl.Expr]) -> None:
    board = day_frames()["model_leaderboard"]
    assert check_table("model_leaderboard", board).equals(board)
    with pytest.raises(InvalidSnapshotError, match="bounds_hold"):
        check_table("model_leaderboard", board.with_columns(**changed))


def day_frames(bend: Bend | None = None) -> dict[str, pl.DataFrame]:
    """Return the rows from which the leaderboard's sums are checked, and the leaderboard."""
    frames = parse([(DAY, sample_answer(DAY, change=bend))])
    tags, models = frames.task_classifications, frames.task_models
    return {"task_classifications": tags, "task_models": models, "model_leaderboard": rank(tags, models)}


def test_a_macro_category_merged_into_the_scope_of_all_traffic_is_not_written() -> None:
    def bend(data: dict[str, Any]) -> None:
        for task in data["classifications"]:
            if task["macro_category"] == "general":
                task["macro_category"] = "all"

    with pytest.raises(InvalidSnapshotError, match=r"usage_share, row 2026-10-06 / all: summed=1\.2.* limit=1\.019"):
        check_scopes(day_frames(bend))


def test_a_sum_that_is_not_a_number_is_not_written() -> None:
    frames = day_frames()
    frames["model_leaderboard"] = frames["model_leaderboard"].with_columns(token_share=pl.lit(float("nan")))
    with pytest.raises(InvalidSnapshotError, match="summed=NaN"):
        check_scopes(frames)
