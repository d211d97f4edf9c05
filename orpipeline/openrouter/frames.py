"""From the bytes of answers to typed frames, many days at once, judging nothing.

A value that does not fit its column becomes NULL in the frame, and what stood in its place is remembered, so
that the contracts, which refuse the NULL, can say what was there.

An answer of exactly the documented shape, as nearly all are, is read by msgspec; any other one by Python's own json,
which takes seven times as long and lets every deviation be named.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Annotated, Any

import msgspec
import polars as pl

from orpipeline.openrouter.answer import iso_date, parse_json

_WHOLE = "(answer)"
_ABSENT = object()  # stands in a column for a field that the answer lacks

_ANSWER_SCHEMA = {
    "as_of": pl.Date,
    "stated_as_of": pl.Date,
    "window_days": pl.Int32,
    "classification_count": pl.Int32,
}
_TASK_FIELDS = {
    "tag": pl.String,
    "display_name": pl.String,
    "macro_category": pl.String,
    "usage_share": pl.Float64,
    "token_share": pl.Float64,
    "category_usage_share": pl.Float64,
    "category_token_share": pl.Float64,
}
_MODEL_FIELDS = {"id": pl.String, "tag_usage_share": pl.Float64, "tag_token_share": pl.Float64}
_MACRO_FIELDS = {
    "key": pl.String,
    "label": pl.String,
    "usage_share": pl.Float64,
    "token_share": pl.Float64,
}
_KNOWN = {
    "": frozenset({"data"}),
    "data": frozenset({"as_of", "window_days", "classifications", "macro_categories"}),
    "data.classifications[]": frozenset({*_TASK_FIELDS, "models"}),
    "data.classifications[].models[]": frozenset(_MODEL_FIELDS),
    "data.macro_categories[]": frozenset(_MACRO_FIELDS),
}


class _Model(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    id: str
    tag_usage_share: float
    tag_token_share: float


class _Task(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    tag: str
    display_name: str
    macro_category: str
    usage_share: float
    token_share: float
    category_usage_share: float
    category_token_share: float
    models: list[_Model]


class _Macro(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    key: str
    label: str
    usage_share: float
    token_share: float


class _Data(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    as_of: str
    window_days: Annotated[int, msgspec.Meta(gt=-(2**31), lt=2**31)]
    classifications: list[_Task]
    macro_categories: list[_Macro]


class _DocumentedAnswer(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    data: _Data


_DOCUMENTED_ANSWER = msgspec.json.Decoder(_DocumentedAnswer)


@dataclass(frozen=True)
class Defect:
    """A place in an answer that has no cell in a frame: a list or an object that is missing or is none."""

    as_of: date
    path: str
    found: str


@dataclass(frozen=True)
class Frames:
    """What a number of answers say, as frames in the order of the answers.

    `answers`: a row a day (`as_of` the day asked for, `stated_as_of`, `window_days`, `classification_count`).
    `task_classifications`, `macro_categories`, `task_models`: the API's fields under the tables' column names,
    with `as_of` and `window_days`; shares are fractions of 1 as published; `task_models.position` counts from
    1 in the answer's order. `originals` has, for (frame, column, row index), the JSON text of a value that did
    not fit its column. `unknown_fields` has, by day, the paths of fields that the API did not document.
    """

    answers: pl.DataFrame
    task_classifications: pl.DataFrame
    macro_categories: pl.DataFrame
    task_models: pl.DataFrame
    originals: Mapping[tuple[str, str, int], str]
    defects: Sequence[Defect]
    unknown_fields: Mapping[date, frozenset[str]]


def parse(bodies: Iterable[tuple[date, bytes]]) -> Frames:
    """Read answers, each with the day that it was asked for, into frames. Never raises for what they hold."""
    reader = _Reader()
    for day, body in bodies:
        reader.read(day, body)
    return reader.frames()


@dataclass
class _Reader:
    answers: list[tuple[Any, ...]] = field(default_factory=list)
    days: dict[str, list[date]] = field(default_factory=dict)
    windows: dict[str, list[Any]] = field(default_factory=dict)
    columns: dict[str, dict[str, list[Any]]] = field(default_factory=dict)
    originals: dict[tuple[str, str, int], str] = field(default_factory=dict)
    defects: list[Defect] = field(default_factory=list)
    unknown: dict[date, set[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for frame, names in (
            ("task_classifications", list(_TASK_FIELDS)),
            ("macro_categories", list(_MACRO_FIELDS)),
            ("task_models", ["tag", "position", *_MODEL_FIELDS]),
        ):
            self.columns[frame] = {name: [] for name in names}
            self.days[frame] = []
            self.windows[frame] = []

    def read(self, day: date, body: bytes) -> None:
        try:
            self._take(day, _DOCUMENTED_ANSWER.decode(body).data)
        except (ValueError, RecursionError):
            self._read_closely(day, body)

    def _take(self, day: date, data: _Data) -> None:
        """Add the rows of an answer of the documented shape."""
        self._answer(day, {"as_of": data.as_of, "window_days": data.window_days}, len(data.classifications))
        tasks, macros = data.classifications, data.macro_categories
        models = [model for task in tasks for model in task.models]
        for frame, structs in (("task_classifications", tasks), ("macro_categories", macros), ("task_models", models)):
            self.days[frame] += [day] * len(structs)
            self.windows[frame] += [data.window_days] * len(structs)
        for name in _TASK_FIELDS:
            self.columns["task_classifications"][name] += [getattr(task, name) for task in tasks]
        for name in _MACRO_FIELDS:
            self.columns["macro_categories"][name] += [getattr(macro, name) for macro in macros]
        for name in _MODEL_FIELDS:
            self.columns["task_models"][name] += [getattr(model, name) for model in models]
        self.columns["task_models"]["tag"] += [task.tag for task in tasks for _ in task.models]
        self.columns["task_models"]["position"] += [n for task in tasks for n in range(1, len(task.models) + 1)]

    def _read_closely(self, day: date, body: bytes) -> None:
        """Add the rows of any answer, and what in it is not as documented."""
        try:
            answer = self._object(day, "", parse_json(body))
        except ValueError:
            self.defects.append(Defect(day, _WHOLE, "(no JSON)"))
            answer = None
        data = self._object(day, "data", answer.get("data", _ABSENT)) if answer is not None else None
        tasks = (data or {}).get("classifications")
        window = self._answer(day, data or {}, len(tasks) if isinstance(tasks, list) else 0)
        if data is not None:
            self._tasks(day, window, data)
            self._macros(day, window, data)

    def _answer(self, day: date, data: Mapping[str, Any], count: int) -> int | None:
        index = len(self.answers)
        stated, window = data.get("as_of", _ABSENT), data.get("window_days", _ABSENT)
        stated_as_of = iso_date(stated)
        if stated_as_of != day:
            self.originals["answers", "stated_as_of", index] = _json_text(stated)
        # A boolean is an int for Python, not for JSON.
        window_days = window if type(window) is int and abs(window) < 2**31 else None
        if window_days is None:
            self.originals["answers", "window_days", index] = _json_text(window)
        self.answers.append((day, stated_as_of, window_days, count))
        return window_days

    def _tasks(self, day: date, window: int | None, data: Mapping[str, Any]) -> None:
        path = "data.classifications[]"
        tasks, models = self.columns["task_classifications"], self.columns["task_models"]
        for task in self._objects(day, path, data.get("classifications", _ABSENT)):
            self._row("task_classifications", day, window, task, _TASK_FIELDS, tasks)
            tag = task.get("tag", _ABSENT)
            listed = task.get("models", _ABSENT)
            for position, model in enumerate(self._objects(day, f"{path}.models[]", listed), start=1):
                self._row("task_models", day, window, model, _MODEL_FIELDS, models)
                models["tag"].append(tag)
                models["position"].append(position)

    def _macros(self, day: date, window: int | None, data: Mapping[str, Any]) -> None:
        listed = data.get("macro_categories", _ABSENT)
        for macro in self._objects(day, "data.macro_categories[]", listed):
            self._row("macro_categories", day, window, macro, _MACRO_FIELDS, self.columns["macro_categories"])

    def _row(
        self,
        frame: str,
        day: date,
        window: int | None,
        values: Mapping[str, Any],
        fields: Iterable[str],
        columns: Mapping[str, list[Any]],
    ) -> None:
        self.days[frame].append(day)
        self.windows[frame].append(window)
        for name in fields:
            columns[name].append(values.get(name, _ABSENT))

    def _objects(self, day: date, path: str, value: object) -> Iterable[dict[str, Any]]:
        """Yield the objects of a list, noting whatever is no list or no object as a defect."""
        if isinstance(value, list):
            for item in value:
                if (found := self._object(day, path, item)) is not None:
                    yield found
        else:
            self._defect(day, path.removesuffix("[]"), value)

    def _object(self, day: date, path: str, value: object) -> dict[str, Any] | None:
        """Return an object, noting its unknown fields, or None (and a defect) for anything else."""
        if not isinstance(value, dict):
            self._defect(day, path or _WHOLE, value)
            return None
        if not value.keys() <= _KNOWN[path]:
            names = {f"{path}.{name}".lstrip(".") for name in value.keys() - _KNOWN[path]}
            # A name can hold half of a surrogate pair too, and the report of it is a table.
            self.unknown.setdefault(day, set()).update(_writable(name) for name in names)
        return value

    def _defect(self, day: date, path: str, value: object) -> None:
        self.defects.append(Defect(day, path, _json_text(value)))

    def frames(self) -> Frames:
        task_models = self._frame("task_models", {"tag": pl.String, **_MODEL_FIELDS})
        task_models = task_models.rename({"id": "model_id"})
        for frame, column, row in [key for key in self.originals if key[1] == "id"]:
            self.originals[frame, "model_id", row] = self.originals.pop((frame, column, row))
        return Frames(
            answers=pl.DataFrame(self.answers, schema=_ANSWER_SCHEMA, orient="row"),
            task_classifications=self._frame("task_classifications", _TASK_FIELDS),
            macro_categories=self._frame("macro_categories", _MACRO_FIELDS),
            task_models=task_models.with_columns(
                pl.Series("position", self.columns["task_models"]["position"], dtype=pl.Int32)
            ),
            originals=self.originals,
            defects=self.defects,
            unknown_fields={day: frozenset(paths) for day, paths in self.unknown.items()},
        )

    def _frame(self, frame: str, fields: Mapping[str, type[pl.DataType]]) -> pl.DataFrame:
        keys = [
            pl.Series("as_of", self.days[frame], dtype=pl.Date),
            pl.Series("window_days", self.windows[frame], dtype=pl.Int32),
        ]
        return pl.DataFrame([*keys, *(self._series(frame, name, dtype) for name, dtype in fields.items())])

    def _series(self, frame: str, name: str, dtype: type[pl.DataType]) -> pl.Series:
        values = self.columns[frame][name]
        fits = _is_number if dtype is pl.Float64 else _is_text
        kinds = set(map(type, values))
        if not (kinds <= {float} if dtype is pl.Float64 else kinds <= {str} and _encodable(values)):
            for row, value in enumerate(values):
                if not fits(value):
                    self.originals[frame, name, row] = _json_text(value)
            values = [value if fits(value) else None for value in values]
        if dtype is pl.Float64:
            values = [None if value is None else float(value) for value in values]
        return pl.Series(name, values, dtype=dtype)


def _is_number(value: object) -> bool:
    # A boolean is an int for Python, not for JSON; an int beyond a double's range is no share either.
    return type(value) is float or (type(value) is int and abs(value) < 2**1000)


def _is_text(value: object) -> bool:
    return isinstance(value, str) and _encodable([value])


def _encodable(values: Iterable[str]) -> bool:
    # JSON can name half of a surrogate pair, which no encoding, and so no table, can hold.
    try:
        "".join(values).encode()
    except UnicodeEncodeError:
        return False
    return True


def _writable(text: str) -> str:
    return text.encode(errors="backslashreplace").decode()


def _json_text(value: object) -> str:
    """Return a value as JSON, cut to a length that a report can show."""
    if value is _ABSENT:
        return "(missing)"
    try:
        text = json.dumps(value)
    except (RecursionError, ValueError):
        text = f"({type(value).__name__})"
    return text if len(text) <= 80 else f"{text[:77]}..."
