"""The pytest plugin: fixtures for tests of your own assets, and isolation for every test.

It is opt-in. Name it in the `conftest.py` of your tests' top folder:

    pytest_plugins = ["orpipeline.testing.plugin"]

A test then needs no import for the fixtures:

    def test_each_author_has_a_row(openrouter):
        openrouter.materialize([authors], day="2026-10-06")
        assert openrouter.read("public.authors").height > 10

No test reaches the real API or real data, even if it uses no fixture:

- The variables `ORPIPELINE_*`, `OPENROUTER_*` and `DAGSTER_HOME` of your shell are hidden before any test is collected.
  A `.env` that a test loads sets none of them either. If `conftest.py` itself imports your definitions, put
  `-p orpipeline.testing.plugin` into pytest's `addopts` instead: it takes effect earlier.
- Each test has its own `ORPIPELINE_DATA_DIR`, and definitions that are built when a module is imported have one for the
  session. A folder is created only if something writes to it. Without any setting, the data is in the session's folder.
- orpipeline sends no request to another machine, including in child processes, and raises SettingsError instead.
- With the fixture `openrouter`, settings in your code are replaced as well: `read(settings=SETTINGS)`,
  `build_defs(SETTINGS)` and the others use the fixture's data.

Without that fixture, a test still reaches what it names itself, such as a path in its own `Settings(data_dir=...)`. So
do definitions that were built from such settings before the test, and child processes with another environment.

If your own tests need one of the variables, name it in pytest's settings:

    [tool.pytest.ini_options]
    orpipeline_keep = ["OPENROUTER_API_KEY"]
"""

from __future__ import annotations

import itertools
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from orpipeline import network

if TYPE_CHECKING:
    import polars as pl

    from orpipeline.testing.pipeline import LocalPipeline

_HIDDEN = ("ORPIPELINE_", "OPENROUTER_", "DAGSTER_HOME")
_DATA_DIR = "ORPIPELINE_DATA_DIR"
_numbers = itertools.count(1)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the setting `orpipeline_keep`."""
    parser.addini(
        "orpipeline_keep", "Environment variables that orpipeline's plugin does not hide.", "args", default=[]
    )


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    """With `-p`: hide the shell's variables before any conftest is imported."""
    _isolate(early_config)


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """With `pytest_plugins`: hide the shell's variables before any test module is imported."""
    if _FOLDER not in config.stash:
        _isolate(config)


_FOLDER = pytest.StashKey[Path]()


def _isolate(config: pytest.Config) -> None:
    """Hide the shell's variables, and restore them at the end of the session."""
    # Only the name: the folder is created when something is written to it.
    folder = Path(tempfile.gettempdir(), f"orpipeline-pytest-{secrets.token_hex(8)}")
    from orpipeline.settings import API_KEY, PREFIX, Settings

    # Empty counts as unset, for orpipeline and for Dagster. A missing variable would be set by a `.env` file.
    empty = [API_KEY, "DAGSTER_HOME", *(PREFIX + name.upper() for name in Settings.model_fields)]
    keep = config.getini("orpipeline_keep")
    hidden = {name: value for name, value in os.environ.items() if name.startswith(_HIDDEN) and name not in keep}
    ours = {**dict.fromkeys(empty, ""), _DATA_DIR: str(folder / "collection"), network.TESTING: "1"}
    ours = {name: value for name, value in ours.items() if name not in keep}
    for name in hidden:
        del os.environ[name]
    os.environ.update(ours)
    config.stash[_FOLDER] = network.test_folder = folder

    def restore() -> None:
        network.test_folder = None
        for name in ours:
            os.environ.pop(name, None)
        os.environ.update(hidden)
        shutil.rmtree(folder, ignore_errors=True)

    config.add_cleanup(restore)


@pytest.fixture(autouse=True)
def _orpipeline_data_dir(pytestconfig: pytest.Config) -> Iterator[None]:
    """Give each test its own data folder. It is created only if the test writes to it."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv(_DATA_DIR, str(pytestconfig.stash[_FOLDER] / str(next(_numbers))))
        yield


@pytest.fixture
def openrouter_options() -> dict[str, Any]:
    """The arguments of the `LocalPipeline` that is `openrouter`. Override it in your `conftest.py` to change them.

    `key_prefix` is the one that you give to `build_defs`; `api` and `instance` are a `LocalApi` and a Dagster instance
    to use instead of new ones:

    @pytest.fixture
    def openrouter_options():
        return {"key_prefix": "market"}
    """
    return {}


@pytest.fixture
def openrouter(tmp_path: Path, openrouter_options: dict[str, Any]) -> Iterator[LocalPipeline]:
    """A pipeline on this machine, empty, with the clock at noon of 2026-10-07: a `LocalPipeline`.

    Its settings and a made-up API key are in the environment, and replace settings in your code, so
    `orpipeline.read(...)`, `build_defs(...)` and the commands use it. `openrouter_options` has its options.
    """
    from orpipeline.testing import LocalPipeline, fixed_clock
    from orpipeline.testing.tables import NOON

    with (
        LocalPipeline(tmp_path / "openrouter", **openrouter_options) as pipeline,
        pipeline.active(),
        fixed_clock(NOON, ticking=True),
    ):
        yield pipeline


@pytest.fixture
def openrouter_tables() -> Callable[[int], dict[str, pl.DataFrame]]:
    """A function that returns the tables and views of n made-up days up to 2026-10-06, as polars frames by name.

    def test_movers(openrouter_tables):
        assert movers(openrouter_tables(14)["model_leaderboard"]).height == 10
    """
    from orpipeline.testing import sample_tables

    return sample_tables
