"""From an answer's bytes to frames: figures as published, everything else recorded, no exception."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from datetime import date, timedelta
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orpipeline.openrouter.frames import Defect, Frames, parse
from orpipeline.testing import sample_answer
from orpipeline_tests.answers import DAY

SHARES = ("usage_share", "token_share", "category_usage_share", "category_token_share")
EVERY_FRAME = ("answers", "task_classifications", "macro_categories", "task_models")


def parse_one(body: bytes) -> Frames:
    return parse([(DAY, body)])


def one_task(value: object, name: str = "usage_share") -> Frames:
    """Return the frames of an answer whose first task has `value` in the field `name`."""

    def bend(data: dict[str, Any]) -> None:
        data["classifications"][0][name] = value

    return parse_one(sample_answer(DAY, change=bend))


# What fits


def test_the_frames_hold_the_figures_of_the_answer() -> None:
    data = json.loads(sample_answer(DAY))["data"]
    frames = parse_one(sample_answer(DAY))
    key = {"as_of": DAY, "window_days": 7}
    tasks = data["classifications"]
    assert frames.answers.to_dicts() == [{**key, "stated_as_of": DAY, "classification_count": len(tasks)}]
    assert frames.task_classifications.to_dicts() == [
        {**key, **{name: value for name, value in task.items() if name != "models"}} for task in tasks
    ]
    assert frames.macro_categories.to_dicts() == [{**key, **macro} for macro in data["macro_categories"]]
    assert frames.task_models.to_dicts() == [
        {
            **key,
            "tag": task["tag"],
            "position": position,
            "model_id": model["id"],
            "tag_usage_share": model["tag_usage_share"],
            "tag_token_share": model["tag_token_share"],
        }
        for task in tasks
        for position, model in enumerate(task["models"], start=1)
    ]
    assert (frames.originals, frames.defects, frames.unknown_fields, frames.repeated_keys) == ({}, [], {}, {})


@pytest.mark.parametrize(
    "bodies",
    [[], [b"<html>"], [b'{"data":{}}'], [sample_answer(DAY)]],
    ids=["none", "no JSON", "no lists", "an answer"],
)
def test_the_frames_always_have_the_same_schemas(bodies: list[bytes]) -> None:
    frames = parse([(DAY, body) for body in bodies])
    key = {"as_of": pl.Date, "window_days": pl.Int32}
    assert dict(frames.answers.schema) == {**key, "stated_as_of": pl.Date, "classification_count": pl.Int32}
    assert dict(frames.task_classifications.schema) == {
        **key,
        **dict.fromkeys(("tag", "display_name", "macro_category"), pl.String),
        **dict.fromkeys(SHARES, pl.Float64),
    }
    assert dict(frames.macro_categories.schema) == {
        **key,
        **dict.fromkeys(("key", "label"), pl.String),
        **dict.fromkeys(("usage_share", "token_share"), pl.Float64),
    }
    assert dict(frames.task_models.schema) == {
        **key,
        **dict.fromkeys(("tag", "model_id"), pl.String),
        **dict.fromkeys(("tag_usage_share", "tag_token_share"), pl.Float64),
        "position": pl.Int32,
    }


def test_many_days_at_once_give_the_same_rows_as_each_day_alone() -> None:
    days = [DAY + timedelta(days=offset) for offset in (0, 3, 1)]
    together = parse((day, sample_answer(day)) for day in days)
    for frame in EVERY_FRAME:
        alone = [getattr(parse([(day, sample_answer(day))]), frame) for day in days]
        assert getattr(together, frame).equals(pl.concat(alone))


def test_an_invalid_day_does_not_affect_another() -> None:
    other = DAY + timedelta(days=1)
    frames = parse([(DAY, b"<html>"), (other, sample_answer(other))])
    assert frames.answers["as_of"].to_list() == [DAY, other]
    assert set(frames.task_classifications["as_of"]) == {other}
    assert frames.defects == [Defect(DAY, "(answer)", "(not JSON)")]


@pytest.mark.parametrize(("number", "share"), [(0, 0.0), (1, 1.0), (-0.0, 0.0), (5e-324, 5e-324), (10**200, 1e200)])
def test_every_json_number_is_a_share(number: float, share: float) -> None:
    frames = one_task(number)
    assert frames.task_classifications["usage_share"][0] == share
    assert frames.originals == {}


@pytest.mark.parametrize("literal", [math.nan, math.inf, -math.inf])
def test_nan_and_infinity_are_passed_to_the_contracts(literal: float) -> None:
    share = one_task(literal).task_classifications["usage_share"][0]
    assert str(share) == str(literal)


@pytest.mark.parametrize("text", ["", "Q&A \u202e \x00 \U0001f600 市場", "'; drop table x; --", "x" * 100_000])
def test_any_text_is_unchanged(text: str) -> None:
    frames = one_task(text, "display_name")
    assert frames.task_classifications["display_name"][0] == text
    assert frames.originals == {}


# What does not fit


@pytest.mark.parametrize(
    ("value", "original"),
    [
        ("0.5", '"0.5"'),
        (True, "true"),
        (False, "false"),
        (None, "null"),
        ([0.5], "[0.5]"),
        ({"share": 0.5}, '{"share": 0.5}'),
        (10**400, "1" + "0" * 76 + "..."),
        ("\ud800", '"\\ud800"'),
    ],
)
@pytest.mark.parametrize("name", SHARES[:1])
def test_a_value_that_is_not_a_number_becomes_null_and_is_recorded(name: str, value: object, original: str) -> None:
    frames = one_task(value, name)
    assert frames.task_classifications[name].null_count() == 1
    assert frames.task_classifications[name][0] is None
    assert frames.originals == {("task_classifications", name, 0): original}


@pytest.mark.parametrize(
    ("value", "original"),
    [
        (7, "7"),
        (0.5, "0.5"),
        (math.nan, "NaN"),
        (True, "true"),
        (None, "null"),
        ([], "[]"),
        ("\ud800 half", '"\\ud800 half"'),
    ],
)
@pytest.mark.parametrize("name", ["display_name"])
def test_a_value_that_is_not_text_becomes_null_and_is_recorded(name: str, value: object, original: str) -> None:
    frames = one_task(value, name)
    assert frames.task_classifications[name].null_count() == 1
    assert frames.originals == {("task_classifications", name, 0): original}


@pytest.mark.parametrize(
    ("lists", "name", "frame", "column"),
    [
        (["classifications"], "usage_share", "task_classifications", "usage_share"),
        (["classifications"], "display_name", "task_classifications", "display_name"),
        (["macro_categories"], "key", "macro_categories", "key"),
        (["macro_categories"], "token_share", "macro_categories", "token_share"),
        (["classifications", "models"], "id", "task_models", "model_id"),
        (["classifications", "models"], "tag_usage_share", "task_models", "tag_usage_share"),
    ],
)
def test_a_missing_field_becomes_null_in_its_row(lists: list[str], name: str, frame: str, column: str) -> None:
    def drop(data: dict[str, Any]) -> None:
        owner = data
        for key in lists:
            owner = owner[key][1]
        del owner[name]

    frames = parse_one(sample_answer(DAY, change=drop))
    row = 1 if len(lists) == 1 else 11  # each task of the made-up answer lists 10 models
    assert getattr(frames, frame)[column].is_null().arg_true().to_list() == [row]
    assert frames.originals == {(frame, column, row): "(missing)"}


def test_an_invalid_tag_is_recorded_for_its_models_too() -> None:
    frames = one_task(7, "tag")
    assert frames.task_models["tag"].null_count() == 10
    assert frames.originals == {
        ("task_classifications", "tag", 0): "7",
        **{("task_models", "tag", row): "7" for row in range(10)},
    }


def test_recorded_row_numbers_continue_across_days() -> None:
    def spoil(data: dict[str, Any]) -> None:
        data["macro_categories"][2]["label"] = None

    frames = parse(
        [(DAY, sample_answer(DAY)), (DAY + timedelta(days=1), sample_answer(DAY + timedelta(days=1), change=spoil))]
    )
    assert frames.originals == {("macro_categories", "label", 4 + 2): "null"}
    assert frames.macro_categories["label"].is_null().arg_true().to_list() == [6]


@pytest.mark.parametrize(
    ("stated", "read", "original"),
    [
        ("2026-10-05", date(2026, 10, 5), '"2026-10-05"'),
        ("20261006", None, '"20261006"'),
        ("2026-10-06T00:00:00Z", None, '"2026-10-06T00:00:00Z"'),
        ("2026-02-30", None, '"2026-02-30"'),
        (20261006, None, "20261006"),
        (None, None, "null"),
    ],
)
def test_a_stated_day_other_than_the_requested_one_is_recorded(
    stated: object, read: date | None, original: str
) -> None:
    frames = parse_one(sample_answer(DAY, change=lambda data: data.update(as_of=stated)))
    assert frames.answers["as_of"].to_list() == [DAY]
    assert frames.answers["stated_as_of"].to_list() == [read]
    assert set(frames.task_classifications["as_of"]) == {DAY}
    assert frames.originals == {("answers", "stated_as_of", 0): original}


@pytest.mark.parametrize(
    ("window", "original"), [(7.0, "7.0"), ("7d", '"7d"'), (True, "true"), (None, "null"), (2**31, "2147483648")]
)
def test_an_invalid_window_becomes_null(window: object, original: str) -> None:
    frames = parse_one(sample_answer(DAY, change=lambda data: data.update(window_days=window)))
    assert frames.answers["window_days"].to_list() == [None]
    assert frames.task_models["window_days"].is_null().all()
    assert frames.originals == {("answers", "window_days", 0): original}


# What has no place in a frame


def bent(bend: Callable[[dict[str, Any]], object]) -> bytes:
    """Return an answer that `bend` has changed; it gets the whole answer, not only `data`."""
    payload = json.loads(sample_answer(DAY))
    bend(payload)
    return json.dumps(payload).encode()


TASKS = "data.classifications"


@pytest.mark.parametrize(
    ("bend", "path", "found"),
    [
        (lambda answer: answer.pop("data"), "data", "(missing)"),
        (lambda answer: answer.update(data=None), "data", "null"),
        (lambda answer: answer.update(data=[1]), "data", "[1]"),
        (lambda answer: answer["data"].pop("classifications"), TASKS, "(missing)"),
        (lambda answer: answer["data"].update(classifications={}), TASKS, "{}"),
        (lambda answer: answer["data"]["classifications"].append(7), f"{TASKS}[]", "7"),
        (lambda answer: answer["data"]["classifications"].append(None), f"{TASKS}[]", "null"),
        (lambda answer: answer["data"].pop("macro_categories"), "data.macro_categories", "(missing)"),
        (lambda answer: answer["data"]["macro_categories"].append("x"), "data.macro_categories[]", '"x"'),
        (lambda answer: answer["data"]["classifications"][0].pop("models"), f"{TASKS}[].models", "(missing)"),
        (lambda answer: answer["data"]["classifications"][0].update(models="x" * 99), f"{TASKS}[].models", None),
        (lambda answer: answer["data"]["classifications"][0]["models"].append([]), f"{TASKS}[].models[]", "[]"),
    ],
)
def test_a_wrong_list_or_object_is_a_defect_at_its_path(
    bend: Callable[[dict[str, Any]], object], path: str, found: str | None
) -> None:
    (defect,) = parse_one(bent(bend)).defects
    assert (defect.as_of, defect.path) == (DAY, path)
    assert defect.found == (found if found is not None else '"' + "x" * 76 + "...")


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (b"", "(not JSON)"),
        (b"<html>", "(not JSON)"),
        (b"\xff\xfe\x00", "(not JSON)"),
        (sample_answer(DAY)[:-1], "(not JSON)"),
        (b"[" * 100_000, "(not JSON)"),
        (b"[" * 100_000 + b"]" * 100_000, "(not JSON)"),
        (b'{"data":' * 100_000 + b"1" + b"}" * 100_000, "(not JSON)"),
        (b"9" * 5000, "(not JSON)"),
        (b"[]", "[]"),
        (b"null", "null"),
        (b'"text"', '"text"'),
        (b"0.5", "0.5"),
    ],
)
def test_an_answer_that_is_not_an_object_is_one_defect(body: bytes, found: str) -> None:
    frames = parse_one(body)
    assert frames.defects == [Defect(DAY, "(answer)", found)]
    assert frames.answers.select("stated_as_of", "window_days", "classification_count").rows() == [(None, None, 0)]
    assert frames.task_classifications.is_empty()


@pytest.mark.parametrize("depth", range(900, 1000, 9))
def test_nesting_near_the_parsers_limit_never_raises(depth: int) -> None:
    nested = b"[" * depth + b"]" * depth
    for body in (nested, b'{"data":' + nested + b"}", b'{"data":{"as_of":' + nested + b',"window_days":7}}'):
        assert parse_one(body).defects


@pytest.mark.parametrize(
    ("bend", "path"),
    [
        (lambda answer: answer.update(meta=1), "meta"),
        (lambda answer: answer["data"].update(next=None), "data.next"),
        (lambda answer: answer["data"]["classifications"][3].update(rank=1), f"{TASKS}[].rank"),
        (lambda answer: answer["data"]["classifications"][0]["models"][0].update(name=""), f"{TASKS}[].models[].name"),
        (lambda answer: answer["data"]["macro_categories"][0].update(icon={}), "data.macro_categories[].icon"),
        # Half of a surrogate pair, which no table can hold.
        (lambda answer: answer.update({"\ud800": 1}), "\\ud800"),
    ],
)
def test_an_undocumented_field_is_recorded(bend: Callable[[dict[str, Any]], object], path: str) -> None:
    frames = parse([(DAY, bent(bend)), (DAY + timedelta(days=1), sample_answer(DAY + timedelta(days=1)))])
    assert frames.unknown_fields == {DAY: {path}}
    assert (frames.defects, frames.originals) == ([], {})


@pytest.mark.parametrize(
    ("body", "keys"),
    [
        (
            b'{"data":{"as_of":"2026-10-06","as_of":"2026-10-07","window_days":7,"window_days":7}}',
            {"as_of", "window_days"},
        ),
        (b'{"data":{},"data":{}}', {"data"}),
        (b'{"data":{"new":[[{"a":1,"\\u0061":1}]]}}', {"a"}),
        (b'{"data":{},"\\ud800":1,"\\ud800":1}', {"\\ud800"}),
        (b'[{"a":1},{"a":1}]', None),
        (b'{"data":{"data":{"data":1}}}', None),
    ],
)
def test_keys_that_an_object_has_twice_are_recorded_for_the_day(body: bytes, keys: set[str] | None) -> None:
    frames = parse([(DAY, body), (DAY + timedelta(days=1), sample_answer(DAY + timedelta(days=1)))])
    assert frames.repeated_keys == ({} if keys is None else {DAY: keys})


# Anything at all

texts = st.text() | st.just("half \ud800")
scalars = st.none() | st.booleans() | st.integers() | st.floats() | texts
FIELDS = (
    *("data", "as_of", "window_days", "classifications", "macro_categories", "models"),
    *("tag", "display_name", "macro_category", *SHARES, "key", "label", "id", "tag_usage_share", "tag_token_share"),
)
names = st.sampled_from(FIELDS) | texts
anything = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(names, inner), max_leaves=20)


def some(fields: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[Any]:
    """Return objects whose fields each have a good value, any other value, or none."""
    return anything | st.fixed_dictionaries({}, optional={name: anything | good for name, good in fields.items()})


shares = st.floats(0, 1)
models = st.lists(some({"id": st.text(), "tag_usage_share": shares, "tag_token_share": shares}), max_size=3)
tasks = st.lists(some({"tag": st.text(), "usage_share": shares, "models": models}), max_size=3)
macros = st.lists(some({"key": st.text(), "label": st.text(), "usage_share": shares}), max_size=3)
answers = some(
    {
        "data": some(
            {
                "as_of": st.just(DAY.isoformat()),
                "window_days": st.integers(),
                "classifications": tasks,
                "macro_categories": macros,
            }
        )
    }
)


@given(payloads=st.lists(answers, max_size=3))
def test_no_json_makes_the_parser_raise_and_every_null_is_recorded(payloads: list[object]) -> None:
    frames = parse((DAY + timedelta(days=i), json.dumps(payload).encode()) for i, payload in enumerate(payloads))
    assert len(frames.answers) == len(payloads)
    for name in EVERY_FRAME:
        frame: pl.DataFrame = getattr(frames, name)
        nulls = {
            (name, column, row)
            for column in frame.columns
            # A day's window is remembered once, with the day's answer.
            if name == "answers" or column != "window_days"
            for row in frame[column].is_null().arg_true()
        }
        remembered = {key for key in frames.originals if key[0] == name}
        assert nulls <= remembered
        if name != "answers":  # there, a stated day that is another one is remembered beside its value
            assert nulls == remembered
    # Everything recorded can be stored as UTF-8.
    recorded = [*frames.originals.values(), *(d.found for d in frames.defects)]
    recorded += [path for paths in frames.unknown_fields.values() for path in paths]
    "".join(recorded).encode()


@given(body=st.binary())
def test_no_bytes_make_the_parser_raise(body: bytes) -> None:
    assert len(parse_one(body).answers) == 1
