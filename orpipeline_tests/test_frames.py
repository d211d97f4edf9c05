"""From a response's bytes to frames: figures as published, everything else recorded, no exception."""

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

from orpipeline.contracts.frames import Defect, Frames, parse
from orpipeline.testing import sample_response
from orpipeline_tests.responses import DAY

NEXT = DAY + timedelta(days=1)
SHARES = ("usage_share", "token_share", "category_usage_share", "category_token_share")
EVERY_FRAME = ("responses", "task_classifications", "macro_categories", "task_models")


def parse_one(body: bytes) -> Frames:
    return parse([(DAY, body)])


def one_task(value: object, name: str = "usage_share") -> Frames:
    """Return the frames of a response whose first task has `value` in the field `name`."""
    return parse_one(sample_response(DAY, change=lambda data: data["classifications"][0].update({name: value})))


# What fits


def test_the_frames_hold_the_figures_of_the_response() -> None:
    data = json.loads(sample_response(DAY))["data"]
    frames = parse_one(sample_response(DAY))
    key = {"as_of": DAY, "window_days": 7}
    tasks = data["classifications"]
    assert frames.responses.to_dicts() == [{**key, "stated_as_of": DAY, "classification_count": len(tasks)}]
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
    [[], [b"<html>"], [b'{"data":{}}'], [sample_response(DAY)]],
    ids=["none", "no JSON", "no lists", "a response"],
)
def test_the_frames_always_have_the_same_schemas(bodies: list[bytes]) -> None:
    frames, whole = parse([(DAY, body) for body in bodies]), parse_one(sample_response(DAY))
    for name in EVERY_FRAME:
        schema = getattr(frames, name).schema
        assert schema == getattr(whole, name).schema
        assert pl.Null not in schema.dtypes()


@pytest.mark.parametrize(
    ("number", "share"),
    [(0, 0.0), (1, 1.0), (-0.0, 0.0), (5e-324, 5e-324), (10**200, 1e200), (math.inf, math.inf), (-math.inf, -math.inf)],
)
def test_every_json_number_is_a_share_which_the_contracts_judge(number: float, share: float) -> None:
    frames = one_task(number)
    assert frames.task_classifications["usage_share"][0] == share
    assert frames.originals == {}


@pytest.mark.parametrize("text", ["", "Q&A \u202e \x00 \U0001f600 市場", "'; drop table x; --", "x" * 100_000])
def test_any_text_is_unchanged(text: str) -> None:
    frames = one_task(text, "display_name")
    assert frames.task_classifications["display_name"][0] == text
    assert frames.originals == {}


# What does not fit


@pytest.mark.parametrize(
    ("name", "value", "original"),
    [
        ("usage_share", "0.5", '"0.5"'),
        ("usage_share", True, "true"),
        ("usage_share", None, "null"),
        ("usage_share", [0.5], "[0.5]"),
        ("usage_share", {"share": 0.5}, '{"share": 0.5}'),
        ("usage_share", 10**400, "1" + "0" * 76 + "..."),
        ("usage_share", "\ud800", '"\\ud800"'),
        ("display_name", 7, "7"),
        ("display_name", math.nan, "NaN"),
        ("display_name", False, "false"),
        ("display_name", None, "null"),
        ("display_name", [], "[]"),
        ("display_name", "\ud800 half", '"\\ud800 half"'),
    ],
)
def test_a_value_that_does_not_fit_becomes_null_and_is_recorded(name: str, value: object, original: str) -> None:
    frames = one_task(value, name)
    assert frames.task_classifications[name].is_null().arg_true().to_list() == [0]
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

    frames = parse([(DAY, sample_response(DAY)), (NEXT, sample_response(NEXT, change=drop))])
    row = 1 if len(lists) == 1 else 11  # each task of the made-up response lists 10 models
    row += getattr(parse_one(sample_response(DAY)), frame).height  # rows are counted across days
    assert getattr(frames, frame)[column].is_null().arg_true().to_list() == [row]
    assert frames.originals == {(frame, column, row): "(missing)"}


def test_an_invalid_tag_is_recorded_for_its_models_too() -> None:
    frames = one_task(7, "tag")
    assert frames.task_models["tag"].null_count() == 10
    assert frames.originals == {
        ("task_classifications", "tag", 0): "7",
        **{("task_models", "tag", row): "7" for row in range(10)},
    }


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
    frames = parse_one(sample_response(DAY, change=lambda data: data.update(as_of=stated)))
    assert frames.responses.select("as_of", "stated_as_of").rows() == [(DAY, read)]
    assert set(frames.task_classifications["as_of"]) == {DAY}
    assert frames.originals == {("responses", "stated_as_of", 0): original}


# What has no place in a frame

Change = Callable[[dict[str, Any]], object]
TASKS = "data.classifications"


def bent(bend: Change) -> bytes:
    """Return a response that `bend` has changed; it gets the whole response, not only `data`."""
    payload = json.loads(sample_response(DAY))
    bend(payload)
    return json.dumps(payload).encode()


@pytest.mark.parametrize(
    ("bend", "path", "found"),
    [
        (lambda whole: whole.pop("data"), "data", "(missing)"),
        (lambda whole: whole.update(data=None), "data", "null"),
        (lambda whole: whole.update(data=[1]), "data", "[1]"),
        (lambda whole: whole["data"].pop("classifications"), TASKS, "(missing)"),
        (lambda whole: whole["data"].update(classifications={}), TASKS, "{}"),
        (lambda whole: whole["data"]["classifications"].append(7), f"{TASKS}[]", "7"),
        (lambda whole: whole["data"].pop("macro_categories"), "data.macro_categories", "(missing)"),
        (lambda whole: whole["data"]["macro_categories"].append("x"), "data.macro_categories[]", '"x"'),
        (lambda whole: whole["data"]["classifications"][0].pop("models"), f"{TASKS}[].models", "(missing)"),
        (
            lambda whole: whole["data"]["classifications"][0].update(models="x" * 99),
            f"{TASKS}[].models",
            '"' + "x" * 76 + "...",
        ),
        (lambda whole: whole["data"]["classifications"][0]["models"].append([]), f"{TASKS}[].models[]", "[]"),
    ],
)
def test_a_wrong_list_or_object_is_a_defect_at_its_path(bend: Change, path: str, found: str) -> None:
    assert parse_one(bent(bend)).defects == [Defect(DAY, path, found)]


@pytest.mark.parametrize(
    ("body", "found"),
    [
        *((body, "(not JSON)") for body in (b"", b"<html>", b"\xff\xfe\x00", sample_response(DAY)[:-1], b"9" * 5000)),
        *((body, "(not JSON)") for body in (b"[" * 100_000, b"[" * 100_000 + b"]" * 100_000)),
        (b'{"data":' * 100_000 + b"1" + b"}" * 100_000, "(not JSON)"),
        *((body, body.decode()) for body in (b"[]", b"null", b'"text"', b"0.5")),
    ],
)
def test_a_response_that_is_not_an_object_is_one_defect(body: bytes, found: str) -> None:
    frames = parse_one(body)
    assert frames.defects == [Defect(DAY, "(response)", found)]
    assert frames.responses.select("stated_as_of", "window_days", "classification_count").rows() == [(None, None, 0)]
    assert frames.task_classifications.is_empty()


@pytest.mark.parametrize(
    ("bend", "path"),
    [
        (lambda whole: whole.update(meta=1), "meta"),
        (lambda whole: whole["data"].update(next=None), "data.next"),
        (lambda whole: whole["data"]["classifications"][3].update(rank=1), f"{TASKS}[].rank"),
        (lambda whole: whole["data"]["classifications"][0]["models"][0].update(name=""), f"{TASKS}[].models[].name"),
        (lambda whole: whole["data"]["macro_categories"][0].update(icon={}), "data.macro_categories[].icon"),
        # Half of a surrogate pair, which no table can hold.
        (lambda whole: whole.update({"\ud800": 1}), "\\ud800"),
    ],
)
def test_an_undocumented_field_is_recorded(bend: Change, path: str) -> None:
    frames = parse([(DAY, bent(bend)), (NEXT, sample_response(NEXT))])
    assert frames.unknown_fields == {DAY: {path}}
    assert (frames.defects, frames.originals) == ([], {})


@pytest.mark.parametrize(
    ("body", "keys"),
    [
        (b'{"data":{"as_of":"2026-10-06","as_of":"x","window_days":7,"window_days":7}}', {"as_of", "window_days"}),
        (b'{"data":{},"data":{}}', {"data"}),
        (b'{"data":{"new":[[{"a":1,"\\u0061":1}]]}}', {"a"}),
        (b'{"data":{},"\\ud800":1,"\\ud800":1}', {"\\ud800"}),
        (b'[{"a":1},{"a":1}]', None),
        (b'{"data":{"data":{"data":1}}}', None),
    ],
)
def test_keys_that_an_object_has_twice_are_recorded_for_the_day(body: bytes, keys: set[str] | None) -> None:
    frames = parse([(DAY, body), (NEXT, sample_response(NEXT))])
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


def some(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Return objects whose fields each have a good value, any other value, or none."""
    return anything | st.fixed_dictionaries({}, optional={name: anything | good for name, good in fields.items()})


shares = st.floats(0, 1)
models = st.lists(some(id=st.text(), tag_usage_share=shares, tag_token_share=shares), max_size=3)
tasks = st.lists(some(tag=st.text(), usage_share=shares, models=models), max_size=3)
macros = st.lists(some(key=st.text(), label=st.text(), usage_share=shares), max_size=3)
as_of = st.just(DAY.isoformat())
responses = some(
    data=some(as_of=as_of, window_days=st.integers(), classifications=tasks, macro_categories=macros),
)


@given(payloads=st.lists(responses, max_size=3))
def test_no_json_makes_the_parser_raise_and_every_null_is_recorded(payloads: list[object]) -> None:
    frames = parse((DAY + timedelta(days=i), json.dumps(payload).encode()) for i, payload in enumerate(payloads))
    assert len(frames.responses) == len(payloads)
    for name in EVERY_FRAME:
        frame: pl.DataFrame = getattr(frames, name)
        nulls = {
            (name, column, row)
            for column in frame.columns
            # A day's window is recorded once, with the day's response.
            if name == "responses" or column != "window_days"
            for row in frame[column].is_null().arg_true()
        }
        recorded = {key for key in frames.originals if key[0] == name}
        # A stated day that is another one is recorded beside its value.
        assert nulls <= recorded if name == "responses" else nulls == recorded
    # Everything recorded can be stored as UTF-8.
    paths = [path for paths in frames.unknown_fields.values() for path in paths]
    "".join([*frames.originals.values(), *(d.found for d in frames.defects), *paths]).encode()


@given(body=st.binary())
def test_no_bytes_make_the_parser_raise(body: bytes) -> None:
    assert len(parse_one(body).responses) == 1
