"""Responses that the contracts must reject: how each is changed, and the rule, row and value that the finding names.

At least one for each rule of severity ERROR, and more if a rule covers different kinds of cases.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from orpipeline.contracts.rules import AS_OF
from orpipeline_tests.responses import DAY, Bend, macro, tag


@dataclass(frozen=True)
class Violation:
    name: str
    bend: Bend
    rule: str
    row: str
    found: str

    def __str__(self) -> str:
        return self.name


def _response(**fields: object) -> Bend:
    return lambda data: data.update(fields)


def _math(**fields: object) -> Bend:
    return lambda data: tag(data, "math").update(fields)


def _of_tag(name: str, /, **fields: object) -> Bend:
    return lambda data: tag(data, name).update(fields)


def _of_macro(of: str, /, **fields: object) -> Bend:
    return lambda data: macro(data, of).update(fields)


def _model(**fields: object) -> Bend:
    return lambda data: tag(data, "math")["models"][3].update(fields)


def _without(field: str) -> Bend:
    return lambda data: tag(data, "math").pop(field) and None


def _add(target: str, field: str, amount: float) -> Bend:
    return lambda data: tag(data, target).update({field: round(tag(data, target)[field] + amount, 3)})


class _Twin(str):
    """A key that Python tells apart from an equal one; as JSON they are the same key."""

    __slots__ = ()
    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        return self is other


def _repeat_key(data: dict[str, Any]) -> None:
    tag(data, "math")["models"][2][_Twin("tag_usage_share")] = 0.9


def _rename_macro(key: str, to: str) -> Bend:
    def bend(data: dict[str, Any]) -> None:
        macro(data, key)["key"] = to
        for task in data["classifications"]:
            if task["macro_category"] == key:
                task["macro_category"] = to

    return bend


def _same_model_in_capitals(data: dict[str, Any]) -> None:
    tag(data, "math")["models"][3]["id"] = "demo-x/twin"
    tag(data, "translation")["models"][3]["id"] = "demo-x/TWIN"


def _repeat_model(data: dict[str, Any]) -> None:
    models = tag(data, "math")["models"]
    models[3]["id"] = models[2]["id"] = "demo-x/twice"


def _move_macro_share(data: dict[str, Any]) -> None:
    # The totals do not change, only the sums within the macro-categories.
    macro(data, "code")["usage_share"] += 0.02
    macro(data, "general")["usage_share"] -= 0.02


def _swap_category_shares(data: dict[str, Any]) -> None:
    first, second = tag(data, "data:extraction"), tag(data, "data:transformation")
    field = "category_token_share"
    first[field], second[field] = second[field], first[field]


def _models_above_one(data: dict[str, Any]) -> None:
    for model in tag(data, "math")["models"]:
        model["tag_usage_share"] = 0.11


def _many_models(data: dict[str, Any]) -> None:
    model = {"tag_usage_share": 0.0, "tag_token_share": 0.0}
    tag(data, "math")["models"] += [{"id": f"demo-x/{n}", **model} for n in range(20_000)]


_ALL = DAY.isoformat()  # the row of a finding about the response as a whole
_NOT_FRACTIONS: list[tuple[object, str]] = [
    ("0.301", '"0.301"'),
    (True, "true"),
    (None, "null"),
    (float("nan"), "NaN"),
    (float("inf"), "Infinity"),
    (1.2, "1.2"),
    ([0.1], "[0.1]"),
]

_CASES: dict[str, list[tuple[str, Bend, str, str]]] = {
    "shares_are_fractions": [
        *((f"a share is {found}", _math(usage_share=value), "math", found) for value, found in _NOT_FRACTIONS),
        *(
            (f"no {field}", _without(field), "math", "(missing)")
            for field in ("token_share", "category_usage_share", "category_token_share")
        ),
        ("a model's share is negative", _model(tag_token_share=-0.1), "math / ", "-0.1"),
        ("a macro-category's share is a string", _of_macro("code", token_share="0.2"), "code", '"0.2"'),
    ],
    "no_other_bucket": [
        *(
            (f"a tag called {name}", _math(tag=name), name, name)
            for name in ("other", "code:Other", "others", "_other_", "other:x", "o\u0308ther", "ot\u200bher")
        ),
        ("a tag displayed as Other", _math(display_name="Other"), "math", "Other"),
        ("a macro-category called Other", _of_macro("data", key="Other"), "Other", "Other"),
        *((f"a model called {name}", _model(id=name), f"math / {name}", name) for name in ("other", "x/OTHERS:free")),
    ],
    "keys_are_unique": [
        (
            "a tag listed twice",
            lambda data: data["classifications"].append(dict(tag(data, "math"))),
            "math",
            'display_name="Math"',
        ),
        (
            "a macro-category listed twice",
            lambda data: data["macro_categories"].append(dict(macro(data, "code"))),
            "code",
            'label="Code"',
        ),
        ("a model listed twice under a tag", _repeat_model, "math / demo-x/twice", "position=3"),
    ],
    "all_is_not_a_category": [
        *(
            (f"a macro-category called {name!a}", _rename_macro("general", name), name, name)
            for name in ("all", "ALL", " all", "\uff41ll")
        ),
        ("a tag in the macro-category all", _math(macro_category="All"), "math", '"All"'),
    ],
    "keys_are_not_empty": [
        *((f"a tag called {name!r}", _math(tag=name), name, f'"{name}"') for name in ("", "  ")),
        ("a model without a name", _model(id=" "), "math /  ", '" "'),
        ("a macro-category without a name", _rename_macro("code", ""), "", '""'),
    ],
    "keys_are_distinct": [
        *(
            (f"two tags that differ in {differ}", _math(tag=name), "translation", f'"{name}"')
            for differ, name in (
                ("case", "TRANSLATION"),
                ("a space at the end", "translation "),
                ("the width of a letter", "\uff54ranslation"),
            )
        ),
        (
            "two macro-categories that differ in case",
            _math(macro_category="General"),
            "general",
            '"general", "General"',
        ),
        (
            "model ids of two tags that differ in case",
            _same_model_in_capitals,
            "demo-x/TWIN",
            '"demo-x/TWIN", "demo-x/twin"',
        ),
    ],
    "json_keys_are_unique": [("a key twice in an object", _repeat_key, _ALL, '"tag_usage_share"')],
    "macro_category_is_listed": [
        (
            "a macro-category not listed",
            lambda data: data["macro_categories"].remove(macro(data, "data")),
            "data:extraction",
            "data",
        )
    ],
    "macro_category_follows_prefix": [
        (
            "code under general",
            _of_tag("code:debugging", macro_category="general"),
            "code:debugging",
            'macro_category="general"',
        ),
        ("no prefix under code", _math(macro_category="code"), "math", 'macro_category="code"'),
        (
            "a new prefix under agent",
            _math(tag="media:ocr", macro_category="agent"),
            "media:ocr",
            'prefix="media"',
        ),
    ],
    "macro_shares_are_sums": [
        ("a macro-category's share is not the sum", _move_macro_share, "code", "summed="),
    ],
    "totals_are_one": [("the total is not 1", _add("qa_knowledge", "usage_share", 0.05), _ALL, "summed=")],
    "category_totals_are_one": [
        ("a category's total is not 1", _add("code:debugging", "category_token_share", 0.05), "code", "summed=")
    ],
    "category_shares_agree": [("category shares swapped", _swap_category_shares, "data:extraction", "category_share=")],
    "model_shares_fit_under_one": [("models sum to more than 1", _models_above_one, "math", "summed=1.1")],
    "as_of_is_the_partition": [
        ("as_of is another day", _response(as_of="2026-10-05"), _ALL, '"2026-10-05"'),
        ("as_of is not a date", _response(as_of="../../x"), _ALL, '"../../x"'),
        ("no as_of", lambda data: data.pop("as_of") and None, _ALL, "(missing)"),
    ],
    "window_is_7_days": [
        ("another window", _response(window_days=30), _ALL, "30"),
        ("the window is a string", _response(window_days="7"), _ALL, '"7"'),
        ("no window_days", lambda data: data.pop("window_days") and None, _ALL, "(missing)"),
    ],
    "has_a_plausible_size": [
        ("an absurd number of models", _many_models, _ALL, "models=20290"),
        ("an absurd number of tags", _response(classifications=[{}] * 3_000), _ALL, "tags=3000"),
    ],
    "has_classifications": [("no classifications", _response(classifications=[]), _ALL, "0")],
    "required_fields": [
        *((f"no {field}", _without(field), "math", "(missing)") for field in ("display_name", "macro_category")),
        ("no models", _without("models"), _ALL, "(missing)"),
        ("no tag", _without("tag"), "None", "(missing)"),
        ("no macro-categories", lambda data: data.pop("macro_categories") and None, _ALL, "(missing)"),
        ("classifications is an object", _response(classifications={}), _ALL, "{}"),
        ("a model is a string", lambda data: tag(data, "math")["models"].append("x"), _ALL, '"x"'),
    ],
}
"""By rule: what is wrong, the change, the row, and what is found there."""

VIOLATIONS = [
    Violation(name, bend, rule, row, found) for rule, cases in _CASES.items() for name, bend, row, found in cases
]

ONE_PER_RULE = [next(v for v in VIOLATIONS if v.rule == rule) for rule in _CASES if rule != AS_OF.name]
"""One violation of each rule that rejects a day; the response states that day."""
