"""The public face: its names, their examples and types, and the record of everything that others refer to."""

from __future__ import annotations

import ast
import doctest
import inspect
import subprocess
import sys
from datetime import timedelta
from difflib import unified_diff
from importlib.util import find_spec
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


# Types


@pytest.mark.slow  # mypy reads Dagster without a cache
@pytest.mark.skipif(find_spec("mypy") is None, reason="mypy is not installed; it is in the extra `dev`")
def test_a_strict_type_checker_knows_every_public_name_and_finds_a_misspelled_one(tmp_path: Path) -> None:
    defaults = {name: field.get_default() for name, field in Settings.model_fields.items()}
    # Numbers and switches as they are, all others as text: paths, too.
    settings = [
        f"    {name}={value if isinstance(value, int | float) else repr('x')}," for name, value in defaults.items()
    ]
    uses = [
        "import orpipeline",
        f"from orpipeline import {', '.join(NAMES)}",
        f"print({', '.join(NAMES)}, orpipeline.__version__)",
        "settings = Settings(",
        *settings,
        ")",
        "build_defs(settings, key_prefix='second', owners=['team:growth'], tags={'a': 'b'})",
        "external_specs(settings)[0].key.path",
        "ModelLeaderboard.validate(read('model_leaderboard', settings=settings)).height",
    ]
    wrong = {
        "misspelled": ("from orpipeline import build_def", 'has no attribute "build_def"'),
        "misspelled_use": ("import orpipeline\n\norpipeline.asset_kye('x')", 'has no attribute "asset_kye"'),
        "internal": ("from orpipeline import Warehouse", 'has no attribute "Warehouse"'),
        "option": ("import orpipeline\n\norpipeline.build_defs(key_prefx='x')", '"key_prefx" for "build_defs"'),
        "setting": ("import orpipeline\n\norpipeline.Settings(datadir='/x')", '"datadir" for "Settings"'),
    }
    (tmp_path / "uses.py").write_text("\n".join(uses))
    for module, (code, _) in wrong.items():
        (tmp_path / f"{module}.py").write_text(code)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--no-pretty", "--cache-dir", "cache", "."],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    errors = [line for line in done.stdout.splitlines() if ": error:" in line]
    assert len(errors) == len(wrong), done.stdout + done.stderr
    for module, (_, message) in wrong.items():
        assert any(line.startswith(f"{module}.py:") and message in line for line in errors), (module, errors)


# The record of the surface


def test_the_public_surface_is_the_recorded_one() -> None:
    """If the change is meant, follow docs/stability.md and CONTRIBUTING.md: record it, and read the file's diff."""
    changed = list(unified_diff(RECORDED.read_text().splitlines(), text().splitlines(), "recorded", "found", n=0))
    assert not changed, f"run `{COMMAND}` if this is meant:\n" + "\n".join(changed)
