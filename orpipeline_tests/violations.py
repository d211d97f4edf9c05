"""Answers that the contracts must reject: how each is changed, and the rule, row and value that the finding names.

At least one for each rule of severity ERROR, and more if a rule covers different kinds of cases.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from orpipeline.contracts.rules import AS_OF, CHECKS, RULES
from orpipeline_tests.answers import Bend, macro, tag


@dataclass(frozen=True)
class Violation:
    name: str
    bend: Bend
    rule: str
    row: str
    found: str

    def __str__(self) -> str:
        return self.name


def _set(target: str, field: str, value: object) -> Bend:
    def bend(data: dict[str, Any]) -> None:
        tag(data, target)[field] = value

    return bend


def _drop(target: str, field: str) -> Bend:
    return lambda data: tag(data, target).pop(field) and None


def _add(target: str, field: str, amount: float) -> Bend:
    def bend(data: dict[str, Any]) -> None:
        tag(data, target)[field] = round(tag(data, target)[field] + amount, 3)

    return bend


def _rename_model(to: str) -> Bend:
    def bend(data: dict[str, Any]) -> None:
        tag(data, "math")["models"][3]["id"] = to

    return bend


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


def _repeat_tag(data: dict[str, Any]) -> None:
    data["classifications"].append(dict(tag(data, "math")))


def _repeat_model(data: dict[str, Any]) -> None:
    models = tag(data, "math")["models"]
    models[3]["id"] = models[2]["id"] = "demo-x/twice"


def _repeat_macro(data: dict[str, Any]) -> None:
    data["macro_categories"].append(dict(macro(data, "code")))


def _other_macro(data: dict[str, Any]) -> None:
    macro(data, "data")["key"] = "Other"


def _unlisted_macro(data: dict[str, Any]) -> None:
    data["macro_categories"].remove(macro(data, "data"))


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


def _no_classifications(data: dict[str, Any]) -> None:
    data["classifications"] = []


def _many_models(data: dict[str, Any]) -> None:
    model = {"tag_usage_share": 0.0, "tag_token_share": 0.0}
    tag(data, "math")["models"] += [{"id": f"demo-x/{n}", **model} for n in range(20_000)]


def _many_tags(data: dict[str, Any]) -> None:
    data["classifications"] = [{}] * 3_000


def _as_of(value: object) -> Bend:
    def bend(data: dict[str, Any]) -> None:
        data["as_of"] = value

    return bend


def _window(value: object) -> Bend:
    def bend(data: dict[str, Any]) -> None:
        data["window_days"] = value

    return bend


_NOT_FRACTIONS: list[tuple[object, str]] = [
    ("0.301", '"0.301"'),
    (True, "true"),
    (None, "null"),
    (float("nan"), "NaN"),
    (float("inf"), "Infinity"),
    (1.2, "1.2"),
    ([0.1], "[0.1]"),
]

VIOLATIONS = [
    *(
        Violation(f"a share is {found}", _set("math", "usage_share", value), "shares_are_fractions", "math", found)
        for value, found in _NOT_FRACTIONS
    ),
    *(
        Violation(f"no {field}", _drop("math", field), "shares_are_fractions", "math", "(missing)")
        for field in ("token_share", "category_usage_share", "category_token_share")
    ),
    Violation(
        "a model's share is negative",
        lambda data: tag(data, "math")["models"][0].update(tag_token_share=-0.1),
        "shares_are_fractions",
        "math / ",
        "-0.1",
    ),
    Violation(
        "a macro-category's share is a string",
        lambda data: macro(data, "code").update(token_share="0.2"),
        "shares_are_fractions",
        "code",
        '"0.2"',
    ),
    *(
        Violation(f"a tag called {name}", _set("math", "tag", name), "no_other_bucket", name, name)
        for name in ("other", "code:Other", "others", "_other_", "other:x")
    ),
    Violation("a tag displayed as Other", _set("math", "display_name", "Other"), "no_other_bucket", "math", "Other"),
    Violation("a macro-category called Other", _other_macro, "no_other_bucket", "Other", "Other"),
    *(
        Violation(f"a model called {name}", _rename_model(name), "no_other_bucket", f"math / {name}", name)
        for name in ("other", "x/OTHERS:free")
    ),
    Violation("a tag listed twice", _repeat_tag, "keys_are_unique", "math", 'display_name="Math"'),
    Violation("a macro-category listed twice", _repeat_macro, "keys_are_unique", "code", 'label="Code"'),
    Violation(
        "a model listed twice under a tag", _repeat_model, "keys_are_unique", "math / demo-x/twice", "position=3"
    ),
    *(
        Violation(
            f"a macro-category called {name}", _rename_macro("general", name), "all_is_not_a_category", name, name
        )
        for name in ("all", "ALL")
    ),
    Violation(
        "a tag in the macro-category all",
        _set("math", "macro_category", "All"),
        "all_is_not_a_category",
        "math",
        '"All"',
    ),
    Violation("a tag that ends with a space", _set("math", "tag", "math "), "names_are_canonical", "math ", '"math "'),
    Violation(
        "a macro-category that ends with a space",
        _rename_macro("code", "code "),
        "names_are_canonical",
        "code ",
        '"code "',
    ),
    Violation("an empty label", lambda data: macro(data, "code").update(label=""), "names_are_canonical", "code", '""'),
    Violation("a long display name", _set("math", "display_name", "x" * 201), "names_are_canonical", "math", '"xxx'),
    Violation(
        "an invisible character in a model id",
        _rename_model("demo-x/\u200bhidden"),
        "names_are_canonical",
        r"math / demo-x/\u200bhidden",
        r'"demo-x/\u200bhidden"',
    ),
    Violation(
        "two tags that differ in case",
        _set("math", "tag", "TRANSLATION"),
        "names_differ_by_more_than_case",
        "translation",
        '"translation", "TRANSLATION"',
    ),
    Violation(
        "two macro-categories that differ in case",
        _set("math", "macro_category", "General"),
        "names_differ_by_more_than_case",
        "general",
        '"general", "General"',
    ),
    Violation(
        "model ids of two tags that differ in case",
        _same_model_in_capitals,
        "names_differ_by_more_than_case",
        "demo-x/TWIN",
        '"demo-x/TWIN", "demo-x/twin"',
    ),
    Violation("a key twice in an object", _repeat_key, "json_keys_are_unique", "2026-10-06", '"tag_usage_share"'),
    Violation("a macro-category not listed", _unlisted_macro, "macro_category_is_listed", "data:extraction", "data"),
    Violation(
        "code under general",
        _set("code:debugging", "macro_category", "general"),
        "macro_category_follows_prefix",
        "code:debugging",
        'macro_category="general"',
    ),
    Violation(
        "no prefix under code",
        _set("math", "macro_category", "code"),
        "macro_category_follows_prefix",
        "math",
        'macro_category="code"',
    ),
    Violation(
        "a new prefix under agent",
        lambda data: tag(data, "math").update(tag="media:ocr", macro_category="agent"),
        "macro_category_follows_prefix",
        "media:ocr",
        'prefix="media"',
    ),
    Violation("a macro-category's share is not the sum", _move_macro_share, "macro_shares_are_sums", "code", "summed="),
    Violation(
        "the total is not 1", _add("qa_knowledge", "usage_share", 0.05), "totals_are_one", "2026-10-06", "summed="
    ),
    Violation(
        "a category's total is not 1",
        _add("code:debugging", "category_token_share", 0.05),
        "category_totals_are_one",
        "code",
        "summed=",
    ),
    Violation(
        "category shares swapped", _swap_category_shares, "category_shares_agree", "data:extraction", "category_share="
    ),
    Violation("models sum to more than 1", _models_above_one, "model_shares_fit_under_one", "math", "summed=1.1"),
    Violation("as_of is another day", _as_of("2026-10-05"), "as_of_is_the_partition", "2026-10-06", '"2026-10-05"'),
    Violation("as_of is not a date", _as_of("../../x"), "as_of_is_the_partition", "2026-10-06", '"../../x"'),
    Violation("another window", _window(30), "window_is_7_days", "2026-10-06", "30"),
    Violation("the window is a string", _window("7"), "window_is_7_days", "2026-10-06", '"7"'),
    Violation("an absurd number of models", _many_models, "has_a_plausible_size", "2026-10-06", "models=20290"),
    Violation("an absurd number of tags", _many_tags, "has_a_plausible_size", "2026-10-06", "tags=3000"),
    Violation("no classifications", _no_classifications, "has_classifications", "2026-10-06", "0"),
    *(
        Violation(f"no {field}", _drop("math", field), "required_fields", "math", "(missing)")
        for field in ("display_name", "macro_category")
    ),
    Violation("no models", _drop("math", "models"), "required_fields", "2026-10-06", "(missing)"),
    Violation("no tag", _drop("math", "tag"), "required_fields", "None", "(missing)"),
    Violation(
        "no macro-categories",
        lambda data: data.pop("macro_categories") and None,
        "required_fields",
        "2026-10-06",
        "(missing)",
    ),
    Violation("no as_of", lambda data: data.pop("as_of") and None, "as_of_is_the_partition", "2026-10-06", "(missing)"),
    Violation(
        "no window_days", lambda data: data.pop("window_days") and None, "window_is_7_days", "2026-10-06", "(missing)"
    ),
    Violation(
        "classifications is an object",
        lambda data: data.update(classifications={}),
        "required_fields",
        "2026-10-06",
        "{}",
    ),
    Violation(
        "a model is a string",
        lambda data: tag(data, "math")["models"].append("x"),
        "required_fields",
        "2026-10-06",
        '"x"',
    ),
]

ONE_PER_CHECK: dict[str, Violation] = {
    check.name: next(v for v in VIOLATIONS if v.rule != AS_OF.name and RULES[v.rule] in check.rules)
    for check in CHECKS.values()
    if check.severity == "ERROR"
}
"""One violation for each asset check that rejects a day, by the check's name; the answer states the requested day."""
