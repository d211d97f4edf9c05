"""The pytest plugin: fixtures for tests of your own assets, and isolation for every test.

It is opt-in. Name it in the `conftest.py` of your tests' top folder:

    pytest_plugins = ["orpipeline.testing.plugin"]

A test then needs no import for the fixtures:

    def test_each_author_has_a_row(openrouter):
        openrouter.materialize([authors], day="2026-10-06")
        assert openrouter.read("public.authors").height > 10

`openrouter` is a `LocalPipeline`, `openrouter_tables` returns made-up tables. `openrouter_options` has the arguments of
the former, if you override it.

No test reaches the real API or real data, even if it uses no fixture:

- The variables `ORPIPELINE_*`, `OPENROUTER_*` and `DAGSTER_HOME` of your shell are hidden before any test is collected.
  A `.env` that a test loads sets none of them either. If `conftest.py` itself imports your definitions, put
  `-p orpipeline.testing.plugin` into pytest's `addopts` instead: it takes effect earlier.
- Each test has its own `ORPIPELINE_DATA_DIR`, which is created only if the test writes to it. Definitions that are
  built when a module is imported have one folder for the whole session.
- Without any setting, the data is in the session's folder, too, and not in your user data folder.
- orpipeline sends no request to another machine, including in child processes, and raises SettingsError instead.

A test can still reach what it names itself: a path in its own `Settings(data_dir=...)`, or what a child process finds
that it starts with another environment.

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
# Empty counts as unset, for orpipeline and for Dagster. A missing variable would be set by a `.env` file. The settings
# themselves would have the names, but take time to import.
EMPTY = (
    "OPENROUTER_API_KEY",
    "DAGSTER_HOME",
    "ORPIPELINE_ARCHIVE",
    "ORPIPELINE_WAREHOUSE",
    "ORPIPELINE_LAKE_DATA",
    "ORPIPELINE_STATE",
    "ORPIPELINE_REPORTS",
    "ORPIPELINE_START_DATE",
    "ORPIPELINE_LOCK_WAIT_SECONDS",
    "ORPIPELINE_BASE_URL",
    "ORPIPELINE_REQUESTS_PER_MINUTE",
    "ORPIPELINE_REQUESTS_PER_DAY",
    "ORPIPELINE_ALERT_WEBHOOK",
    "ORPIPELINE_HTTP_REFERER",
    "ORPIPELINE_APP_TITLE",
    "ORPIPELINE_APP_CATEGORIES",
)
"""The variables that are empty in tests: all of orpipeline's but the data folder, and Dagster's home."""
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
    keep = config.getini("orpipeline_keep")
    hidden = {name: value for name, value in os.environ.items() if name.startswith(_HIDDEN) and name not in keep}
    ours = {**dict.fromkeys(EMPTY, ""), _DATA_DIR: str(folder / "collection"), network.TESTING: "1"}
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
    """The arguments of the `LocalPipeline` that is `openrouter`. Override it if your project differs:

    @pytest.fixture
    def openrouter_options():
        return {"key_prefix": "market", "start_date": "2026-09-01"}
    """
    return {}


@pytest.fixture
def openrouter(tmp_path: Path, openrouter_options: dict[str, Any]) -> Iterator[LocalPipeline]:
    """A pipeline on this machine, empty, with the clock at noon of 2026-10-07: a `LocalPipeline`.

    Its settings and a made-up API key are in the environment, so `orpipeline.read(...)`, `build_defs()` and the
    commands use it, too.
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
