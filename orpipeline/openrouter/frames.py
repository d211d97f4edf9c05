"""From the bytes of answers to typed frames, for many days at once. Rejects nothing.

A value that does not fit its column becomes NULL in the frame. The original is recorded: the contracts reject the
NULL and show the original.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from heapq import nsmallest
from typing import Any

import polars as pl

from orpipeline.openrouter.answer import iso_date, parse_json

MOST_TAGS, MOST_MODELS, MOST_MACRO_CATEGORIES = 1_000, 20_000, 1_000
"""Of one answer; a typical one has 29, 290 and 4. The contracts reject a larger one, and the frames lack its rows."""
_MOST_UNKNOWN_FIELDS = 100  # of one answer; the others are not recorded

_WHOLE = "(answer)"
_ABSENT = object()  # the value of a field that the answer does not have

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


@dataclass(frozen=True)
class Defect:
    """A list or an object that an answer lacks or has with another type. It has no cell in a frame."""

    as_of: date
    path: str
    found: str


@dataclass(frozen=True)
class Frames:
    """The content of answers as frames, in the order of the answers.

    `answers`: one row for each day (`as_of` the requested day, `stated_as_of`, `window_days`,
    `classification_count`). `task_classifications`, `macro_categories`, `task_models`: the API's fields under the
    tables' column names, with `as_of` and `window_days`; shares are fractions of 1 as published;
    `task_models.position` counts from 1 in the answer's order. `originals` maps (frame, column, row index) to the
    JSON text of a value that did not fit its column. `unknown_fields` maps a day to the paths of fields that the
    API does not document. `repeated_keys` maps a day to the keys that an object of its answer has more than once,
    anywhere in the answer; the frames have the last value. `oversized` maps a day whose answer is too large to its
    numbers of tags, listed models and macro-categories; the other frames have no rows of that day.
    """

    answers: pl.DataFrame
    task_classifications: pl.DataFrame
    macro_categories: pl.DataFrame
    task_models: pl.DataFrame
    originals: Mapping[tuple[str, str, int], str]
    defects: Sequence[Defect]
    unknown_fields: Mapping[date, frozenset[str]]
    repeated_keys: Mapping[date, frozenset[str]]
    oversized: Mapping[date, tuple[int, int, int]]


def parse(bodies: Iterable[tuple[date, bytes]]) -> Frames:
    """Parse answers, each with its requested day, into frames. Raises nothing, whatever the bytes are."""
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
    repeated: dict[date, set[str]] = field(default_factory=dict)
    oversized: dict[date, tuple[int, int, int]] = field(default_factory=dict)

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
        """Add the rows of an answer, and record what is not as documented."""

        def object_of(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
            value = dict(pairs)
            if len(value) < len(pairs):
                counts = Counter(name for name, _ in pairs)
                self.repeated.setdefault(day, set()).update(name for name, count in counts.items() if count > 1)
            return value

        try:
            answer = self._object(day, "", parse_json(body, object_of))
        except ValueError:
            self.defects.append(Defect(day, _WHOLE, "(not JSON)"))
            answer = None
        data = self._object(day, "data", answer.get("data", _ABSENT)) if answer is not None else None
        size = tags, models, macros = _size(data or {})
        window = self._answer(day, data or {}, tags)
        if tags > MOST_TAGS or models > MOST_MODELS or macros > MOST_MACRO_CATEGORIES:
            self.oversized[day] = size
        elif data is not None:
            self._tasks(day, window, data)
            self._macros(day, window, data)

    def _answer(self, day: date, data: Mapping[str, Any], count: int) -> int | None:
        index = len(self.answers)
        stated, window = data.get("as_of", _ABSENT), data.get("window_days", _ABSENT)
        stated_as_of = iso_date(stated)
        if stated_as_of != day:
            self.originals["answers", "stated_as_of", index] = _json_text(stated)
        # In Python, but not in JSON, a boolean is an int.
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
        """Yield the objects of a list. Record anything else as a defect."""
        if isinstance(value, list):
            for item in value:
                if (found := self._object(day, path, item)) is not None:
                    yield found
        else:
            self._defect(day, path.removesuffix("[]"), value)

    def _object(self, day: date, path: str, value: object) -> dict[str, Any] | None:
        """Return an object and record its unknown fields; for anything else, record a defect and return None."""
        if not isinstance(value, dict):
            self._defect(day, path or _WHOLE, value)
            return None
        if not value.keys() <= _KNOWN[path]:
            known = self.unknown.setdefault(day, set())
            names = nsmallest(_MOST_UNKNOWN_FIELDS - len(known), value.keys() - _KNOWN[path])
            # A name can contain half of a surrogate pair, too; no table can store that.
            known.update(_writable(f"{path}.{name}".lstrip(".")) for name in names)
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
            repeated_keys={day: frozenset(map(_writable, names)) for day, names in self.repeated.items()},
            oversized=self.oversized,
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


def _size(data: Mapping[str, Any]) -> tuple[int, int, int]:
    """Return an answer's numbers of tags, listed models and macro-categories; 0 for what is not a list."""
    tasks, macros = data.get("classifications"), data.get("macro_categories")
    tasks = tasks if isinstance(tasks, list) else []
    listed = (task.get("models") for task in tasks if isinstance(task, dict))
    models = sum(len(models) for models in listed if isinstance(models, list))
    return len(tasks), models, len(macros) if isinstance(macros, list) else 0


def _is_number(value: object) -> bool:
    # In Python, but not in JSON, a boolean is an int. An int beyond a double's range is not a share.
    return type(value) is float or (type(value) is int and abs(value) < 2**1000)


def _is_text(value: object) -> bool:
    return isinstance(value, str) and _encodable([value])


def _encodable(values: Iterable[str]) -> bool:
    # JSON can contain half of a surrogate pair. UTF-8 cannot represent it, so no table can store it.
    try:
        "".join(values).encode()
    except UnicodeEncodeError:
        return False
    return True


def _writable(text: str) -> str:
    return text.encode(errors="backslashreplace").decode()


def _json_text(value: object) -> str:
    """Return a value as JSON, at most 80 characters of it."""
    if value is _ABSENT:
        return "(missing)"
    try:
        text = json.dumps(value)
    except (RecursionError, ValueError):
        text = f"({type(value).__name__})"
    return text if len(text) <= 80 else f"{text[:77]}..."
