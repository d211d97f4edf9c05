"""Which module may import which, as the design has it: imports run one way along a day's path."""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterator
from pathlib import Path

import orpipeline
from orpipeline_tests.processes import run_python

PACKAGE = Path(orpipeline.__file__).parent
LAYERS = [
    {"errors"},
    {"text", "clock", "network"},
    {"settings", "stores", "postgres"},
    {"openrouter"},
    {"archive"},
    {"capture"},
    {"contracts", "catalogue"},
    {"leaderboard"},
    {"warehouse"},
    {"capture", "load"},
    {"importing"},
    {"report"},
    {"defs", "definitions"},
    {"cli"},
]
"""A module imports from its own layer and from those above it, with two exceptions: a report needs no import, and
`testing`, which is beside the layers, is for the tests and for the demo."""
WITH_DAGSTER = {"defs", "definitions", "cli", "testing"}
FOR_THE_DEMO = {"cli.start"}
READS_THE_ENVIRONMENT = {
    "settings": "every setting, and the API key",
    "network": "ORPIPELINE_TESTING, which the pytest plugin sets for child processes",
    "stores": "AWS_*, GOOGLE_* and AZURE_*: where obstore sends its requests",
    "warehouse.ducklake": "the same variables, for DuckDB",
    "openrouter.client": "the proxy's variables, to name a wrong one",
    "cli.dagster_runs": "DAGSTER_HOME",
    "cli.terminal": "DAGSTER_HOME: where it is, and that the demo does not use it",
    "cli.start": "the demo's API key, for its own runs, and what the UI's processes inherit",
    "testing.pipeline": "what a test sets",
    "testing.plugin": "what a test sets",
}
"""The modules that may use `os.environ`, and for what."""


def _modules() -> Iterator[tuple[str, ast.Module]]:
    """Yield the parsed modules by name, without `orpipeline.`; a package has the name of its folder."""
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        yield ".".join(part for part in parts if part != "__init__"), ast.parse(path.read_text(encoding="utf-8"))


MODULES = dict(_modules())


def imported(tree: ast.AST) -> Iterator[str]:
    """Yield the full name of all that is imported, also within functions, but not what only type checkers import."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            yield from (name for other in node.orelse for name in imported(other))
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"a relative import: {ast.unparse(node)}"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        else:
            yield from imported(node)


def parts_of(name: str) -> set[str]:
    """Return which parts of orpipeline a module imports."""
    return {other.split(".")[1] for other in imported(MODULES[name]) if other.startswith("orpipeline.")}


def test_imports_run_one_way() -> None:
    for name in MODULES:
        part = name.partition(".")[0]
        for layer, parts in enumerate(LAYERS):
            if part in parts:
                allowed = set[str]().union(*LAYERS[: layer + 1], {"testing"} if name in FOR_THE_DEMO else set())
                assert parts_of(name) <= allowed - ({"importing"} if part == "report" else set()), name


def test_every_part_has_its_layer() -> None:
    parts = {name.partition(".")[0] for name in MODULES}
    assert parts == {"", "testing"}.union(*LAYERS)


def test_only_the_definitions_the_commands_and_testing_import_dagster() -> None:
    found = {
        name.partition(".")[0] for name in MODULES if any(o.startswith("dagster") for o in imported(MODULES[name]))
    }
    assert found <= WITH_DAGSTER


def test_fetching_loads_neither_dagster_nor_the_tables() -> None:
    heavy = ("dagster", "polars", "pandera", "duckdb", "orpipeline.warehouse")
    loaded = run_python(f"import sys, orpipeline.capture; print([name for name in {heavy} if name in sys.modules])")
    assert loaded == "[]\n"


def test_only_these_modules_read_the_environment() -> None:
    found = {name for name, tree in MODULES.items() if {"os.environ", "os.getenv"} & _attributes(tree)}
    assert found == set(READS_THE_ENVIRONMENT)


def _attributes(tree: ast.AST) -> set[str]:
    return {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}


def test_there_are_at_most_20_exceptions_and_all_are_in_errors() -> None:
    known = {name for name, value in vars(builtins).items() if isinstance(value, type) and issubclass(value, Exception)}
    found = set()
    for name, tree in MODULES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                bases = {ast.unparse(base).rpartition(".")[2] for base in node.bases}
                if bases & known or any(base.endswith("Error") for base in bases):
                    found.add((name, node.name))
    assert {name for name, _ in found} == {"errors"}
    assert len(found) <= 20
