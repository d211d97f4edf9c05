"""The tutorial and the example that it results in. `orpipeline_tests.tutorial` follows the page; `.ci/run` runs it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from orpipeline_tests.tutorial import EXAMPLE, OWN_FILES, PAGE, blocks, files

_LONGEST = 14  # lines of code of a step: not imports, constants above an asset, docstrings, or the decorator's `)`
_CACHES = {"__pycache__", ".mypy_cache", ".pytest_cache", ".ruff_cache", ".venv", "target", "logs"}

pytestmark = pytest.mark.skipif(not PAGE.exists(), reason="these tests are installed without the documentation")


def _example_files() -> dict[str, str]:
    paths = [path for path in EXAMPLE.rglob("*") if path.is_file() and not _CACHES & set(path.parts)]
    return {path.relative_to(EXAMPLE).as_posix(): path.read_text() for path in paths}


def test_the_example_is_what_the_page_builds() -> None:
    example = {path: text for path, text in _example_files().items() if path not in OWN_FILES}
    assert example == files(PAGE.read_text()), "update it: python -m orpipeline_tests.tutorial --write-example"


def test_each_step_is_short() -> None:
    for block in blocks(PAGE.read_text()):
        body = re.sub(r"(?s)^.*?(?=@dg\.|\Z)", "", block.text) if "@dg." in block.text else block.text
        code = [
            line for line in body.splitlines() if line.strip() and not re.match(r'\s*(import |from |""")|\)$', line)
        ]
        if block.path is None or not block.path.startswith(("tests/", "pyproject")):
            assert len(code) <= _LONGEST, f"{block.path}: {len(code)} lines"


def test_each_test_of_the_page_is_8_lines_or_fewer() -> None:
    for path, text in files(PAGE.read_text()).items():
        if path.startswith("tests/"):
            for test in re.split(r"(?m)^(?=def test_)", text)[1:]:
                assert len(test.strip().splitlines()) <= 8, f"{path}: {test}"


@pytest.mark.slow
def test_a_strict_type_checker_passes_on_the_example_and_finds_a_wrong_import(tmp_path: Path) -> None:
    for path, text in files(PAGE.read_text()).items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    (tmp_path / "market" / "wrong.py").write_text(
        "from orpipeline import buld_defs\nfrom orpipeline.testing import LocalPipelin\n"
    )
    shutil.rmtree(tmp_path / "dbt")  # its packages are not installed here
    (tmp_path / "tests" / "test_dbt.py").unlink()
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--config-file=", "market", "analyst", "tests"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    errors = [line for line in checked.stdout.splitlines() if "error:" in line]
    assert len(errors) == 2, checked.stdout + checked.stderr
    assert 'market/wrong.py:1: error: Module "orpipeline" has no attribute "buld_defs"' in errors[0]
    assert "market/wrong.py:2: error:" in errors[1]
    assert "LocalPipelin" in errors[1]
