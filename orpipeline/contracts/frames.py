"""From the bytes of responses to typed frames, for many days at once. Rejects nothing.

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

from orpipeline.openrouter.response import iso_date, parse_json
from orpipeline.text import encodable

MOST_TAGS, MOST_MODELS, MOST_MACRO_CATEGORIES = 1_000, 20_000, 1_000
"""Of one response; a typical one has 29, 290 and 4. The contracts reject a larger one, and the frames lack its rows."""
_MOST_UNKNOWN_FIELDS = 100  # of one response; the others are not recorded

_WHOLE = "(response)"
_ABSENT = object()  # the value of a field that the response does not have

_RESPONSE_SCHEMA = {
    "as_of": pl.Date,
    "stated_as_of": pl.Date,
    "window_days": pl.Int32,
    "classification_count": pl.Int32,
}
# Of each frame: its columns after `as_of` and `window_days`, the API's field of each, and its type.
_TASKS, _MODELS, _MACROS = "task_classifications", "task_models", "macro_categories"
_SHARES = {name: (name, pl.Float64) for name in ("usage_share", "token_share")}
_TASK_TEXTS = {name: (name, pl.String) for name in ("tag", "display_name", "macro_category")}
_FIELDS: dict[str, dict[str, tuple[str, type[pl.DataType]]]] = {
    _TASKS: {**_TASK_TEXTS, **_SHARES, **{f"category_{name}": (f"category_{name}", pl.Float64) for name in _SHARES}},
    _MACROS: {"key": ("key", pl.String), "label": ("label", pl.String), **_SHARES},
    _MODELS: {
        "tag": ("tag", pl.String),
        "position": ("position", pl.Int32),
        "model_id": ("id", pl.String),
        **{f"tag_{name}": (f"tag_{name}", pl.Float64) for name in _SHARES},
    },
}
_KNOWN = {
    "": frozenset({"data"}),
    "data": frozenset({"as_of", "window_days", "classifications", "macro_categories"}),
    "data.classifications[]": frozenset({*_FIELDS[_TASKS], "models"}),
    "data.classifications[].models[]": frozenset({"id", "tag_usage_share", "tag_token_share"}),
    "data.macro_categories[]": frozenset(_FIELDS[_MACROS]),
}


@dataclass(frozen=True)
class Defect:
    """A list or an object that a response lacks or has with another type. It has no cell in a frame."""

    as_of: date
    path: str
    found: str


@dataclass(frozen=True)
class Frames:
    """The content of responses as frames, in the order of the responses.

    `responses`: one row for each day (`as_of` the requested day, `stated_as_of`, `window_days`,
    `classification_count`). `task_classifications`, `macro_categories`, `task_models`: the API's fields under the
    tables' column names, with `as_of` and `window_days`; shares are fractions of 1 as published;
    `task_models.position` counts from 1 in the response's order. `originals` maps (frame, column, row index) to the
    JSON text of a value that did not fit its column. `unknown_fields` maps a day to the paths of fields that the
    API does not document. `repeated_keys` maps a day to the keys that an object of its response has more than once,
    anywhere in the response; the frames have the last value. `oversized` maps a day whose response is too large to its
    numbers of tags, listed models and macro-categories; the other frames have no rows of that day.
    """

    responses: pl.DataFrame
    task_classifications: pl.DataFrame
    macro_categories: pl.DataFrame
    task_models: pl.DataFrame
    originals: Mapping[tuple[str, str, int], str]
    defects: Sequence[Defect]
    unknown_fields: Mapping[date, frozenset[str]]
    repeated_keys: Mapping[date, frozenset[str]]
    oversized: Mapping[date, tuple[int, int, int]]


def parse(bodies: Iterable[tuple[date, bytes]]) -> Frames:
    """Parse responses, each with its requested day, into frames. Raises nothing, whatever the bytes are."""
    reader = _Reader()
    for day, body in bodies:
        reader.read(day, body)
    return reader.frames()


@dataclass
class _Reader:
    responses: list[tuple[Any, ...]] = field(default_factory=list)
    columns: dict[str, dict[str, list[Any]]] = field(
        default_factory=lambda: {
            frame: {name: [] for name in ("as_of", "window_days", *fields)} for frame, fields in _FIELDS.items()
        }
    )
    originals: dict[tuple[str, str, int], str] = field(default_factory=dict)
    defects: list[Defect] = field(default_factory=list)
    unknown: dict[date, set[str]] = field(default_factory=dict)
    repeated: dict[date, set[str]] = field(default_factory=dict)
    oversized: dict[date, tuple[int, int, int]] = field(default_factory=dict)

    def read(self, day: date, body: bytes) -> None:
        """Add the rows of a response, and record what is not as documented."""

        def object_of(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
            value = dict(pairs)
            if len(value) < len(pairs):
                counts = Counter(name for name, _ in pairs)
                self.repeated.setdefault(day, set()).update(name for name, count in counts.items() if count > 1)
            return value

        try:
            response = self._object(day, "", parse_json(body, object_of))
        except ValueError:
            self.defects.append(Defect(day, _WHOLE, "(not JSON)"))
            response = None
        data = self._object(day, "data", response.get("data", _ABSENT)) if response is not None else None
        size = tags, models, macros = _size(data or {})
        window = self._response(day, data or {}, tags)
        if tags > MOST_TAGS or models > MOST_MODELS or macros > MOST_MACRO_CATEGORIES:
            self.oversized[day] = size
        elif data is not None:
            self._rows(day, window, data)

    def _response(self, day: date, data: Mapping[str, Any], count: int) -> int | None:
        index = len(self.responses)
        stated, window = data.get("as_of", _ABSENT), data.get("window_days", _ABSENT)
        stated_as_of = iso_date(stated)
        if stated_as_of != day:
            self.originals["responses", "stated_as_of", index] = _json_text(stated)
        # In Python, but not in JSON, a boolean is an int.
        window_days = window if type(window) is int and abs(window) < 2**31 else None
        if window_days is None:
            self.originals["responses", "window_days", index] = _json_text(window)
        self.responses.append((day, stated_as_of, window_days, count))
        return window_days

    def _rows(self, day: date, window: int | None, data: Mapping[str, Any]) -> None:
        path = "data.classifications[]"
        for task in self._objects(day, path, data.get("classifications", _ABSENT)):
            self._add(_TASKS, day, window, task)
            tag, listed = task.get("tag", _ABSENT), task.get("models", _ABSENT)
            for position, model in enumerate(self._objects(day, f"{path}.models[]", listed), start=1):
                self._add(_MODELS, day, window, {**model, "tag": tag, "position": position})
        for macro in self._objects(day, "data.macro_categories[]", data.get("macro_categories", _ABSENT)):
            self._add(_MACROS, day, window, macro)

    def _add(self, frame: str, day: date, window: int | None, values: Mapping[str, Any]) -> None:
        columns = self.columns[frame]
        columns["as_of"].append(day)
        columns["window_days"].append(window)
        for name, (known_as, _) in _FIELDS[frame].items():
            columns[name].append(values.get(known_as, _ABSENT))

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
            known.update(encodable(f"{path}.{name}".lstrip(".")) for name in names)
        return value

    def _defect(self, day: date, path: str, value: object) -> None:
        self.defects.append(Defect(day, path, _json_text(value)))

    def frames(self) -> Frames:
        return Frames(
            responses=pl.DataFrame(self.responses, schema=_RESPONSE_SCHEMA, orient="row"),
            task_classifications=self._frame(_TASKS),
            macro_categories=self._frame(_MACROS),
            task_models=self._frame(_MODELS),
            originals=self.originals,
            defects=self.defects,
            unknown_fields={day: frozenset(paths) for day, paths in self.unknown.items()},
            repeated_keys={day: frozenset(map(encodable, names)) for day, names in self.repeated.items()},
            oversized=self.oversized,
        )

    def _frame(self, frame: str) -> pl.DataFrame:
        columns = self.columns[frame]
        keys = [
            pl.Series("as_of", columns["as_of"], dtype=pl.Date),
            pl.Series("window_days", columns["window_days"], dtype=pl.Int32),
        ]
        return pl.DataFrame([*keys, *(self._series(frame, name, dtype) for name, (_, dtype) in _FIELDS[frame].items())])

    def _series(self, frame: str, name: str, dtype: type[pl.DataType]) -> pl.Series:
        values = self.columns[frame][name]
        if dtype is not pl.Int32:
            fits = _is_number if dtype is pl.Float64 else _is_text
            unfit = [row for row, value in enumerate(values) if not fits(value)]
            for row in unfit:
                self.originals[frame, name, row] = _json_text(values[row])
                values[row] = None
        if dtype is pl.Float64:
            values = [None if value is None else float(value) for value in values]
        return pl.Series(name, values, dtype=dtype)


def _size(data: Mapping[str, Any]) -> tuple[int, int, int]:
    """Return a response's numbers of tags, listed models and macro-categories; 0 for what is not a list."""
    tasks, macros = data.get("classifications"), data.get("macro_categories")
    tasks = tasks if isinstance(tasks, list) else []
    listed = (task.get("models") for task in tasks if isinstance(task, dict))
    models = sum(len(models) for models in listed if isinstance(models, list))
    return len(tasks), models, len(macros) if isinstance(macros, list) else 0


def _is_number(value: object) -> bool:
    # In Python, but not in JSON, a boolean is an int. An int beyond a double's range is not a share.
    return type(value) is float or (type(value) is int and abs(value) < 2**1000)


def _is_text(value: object) -> bool:
    # JSON can contain half of a surrogate pair. UTF-8 cannot represent it, so no table can store it.
    return isinstance(value, str) and (value.isascii() or encodable(value) == value)


def _json_text(value: object) -> str:
    """Return a value as JSON, at most 80 characters of it."""
    if value is _ABSENT:
        return "(missing)"
    try:
        text = json.dumps(value)
    except (RecursionError, ValueError):
        text = f"({type(value).__name__})"
    return text if len(text) <= 80 else f"{text[:77]}..."
