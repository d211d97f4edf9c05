"""The public face: its names, their examples and types, and the record of everything that others refer to."""

from __future__ import annotations

import ast
import doctest
import inspect
from datetime import timedelta
from difflib import unified_diff
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

import orpipeline
from orpipeline.settings import Settings
from orpipeline_tests.responses import DAY
from orpipeline_tests.surface import COMMAND, RECORDED, load, text

STUB = Path(orpipeline.__file__).with_suffix(".pyi")
NAMES = [name for name in dir(orpipeline) if name != "__version__"]


def test_the_stub_lists_each_public_name_once_and_dir_lists_no_others() -> None:
    imports = [node for node in ast.parse(STUB.read_text()).body if isinstance(node, ast.ImportFrom)]
    listed = [alias.asname or alias.name for node in imports for alias in node.names]
    assert sorted(listed) == NAMES
    assert len(set(listed)) == len(listed)
    assert dir(orpipeline) == sorted([*listed, "__version__"])
    for name in NAMES:
        assert getattr(orpipeline, name).__name__ == name
    with pytest.raises(ImportError, match="Warehouse"):
        from orpipeline import Warehouse  # type: ignore[attr-defined] # noqa: F401 - it is internal


def test_the_key_of_an_asset_that_does_not_exist_is_an_error() -> None:
    assert orpipeline.asset_key("model_trends", "second").path == ["second", "model_trends"]
    with pytest.raises(orpipeline.SettingsError, match=r"no asset 'task_modles'\. Did you mean 'task_models'\?"):
        orpipeline.asset_key("task_modles")
    with pytest.raises(orpipeline.SettingsError, match="no asset 'latest_leaderboard'"):
        orpipeline.asset_key("latest_leaderboard")  # a view that is not an asset


def test_an_invalid_label_is_an_error_and_not_ignored(tmp_path: Path) -> None:
    wrong: list[dict[str, Any]] = [{"group_name": ""}, {"owners": ["somebody"]}, {"tags": {"a b": "c"}}]
    for options in wrong:
        with pytest.raises(dg.DagsterInvalidDefinitionError):
            orpipeline.build_defs(Settings(data_dir=tmp_path), **options)
        with pytest.raises(dg.DagsterInvalidDefinitionError):
            orpipeline.external_specs(Settings(data_dir=tmp_path), **options)


# Examples


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with three days and their published copy."""
    folder = tmp_path_factory.mktemp("data")
    load(Settings(data_dir=folder), *(DAY - timedelta(days=back) for back in (2, 1, 0)))
    return folder


@pytest.mark.usefixtures("at_noon")
@pytest.mark.parametrize("name", NAMES)
def test_the_example_of_each_public_name_runs(name: str, loaded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORPIPELINE_DATA_DIR", str(loaded))
    docstring = inspect.cleandoc(getattr(orpipeline, name).__doc__ or "")
    example = doctest.DocTestParser().get_doctest(docstring, {}, name, None, None)
    assert example.examples, f"{name} has no example in its docstring"
    assert f"orpipeline.{name}" in docstring
    output: list[str] = []
    failed = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(example, out=output.append).failed
    assert not failed, "".join(output)


# The record of the surface


def test_the_public_surface_is_the_recorded_one() -> None:
    """If the change is meant, follow docs/stability.md and CONTRIBUTING.md: record it, and read the file's diff."""
    changed = list(unified_diff(RECORDED.read_text().splitlines(), text().splitlines(), "recorded", "found", n=0))
    assert not changed, f"run `{COMMAND}` if this is meant:\n" + "\n".join(changed)
