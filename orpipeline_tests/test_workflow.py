"""The scheduled workflow of a code host: its own steps, for three days, with a bare repository as the remote."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from orpipeline.network import TESTING
from orpipeline.testing import LocalApi
from orpipeline.testing.local_api import KEY
from orpipeline_tests.cluster import DEPLOY

WORKFLOW = DEPLOY / "github-actions.yml"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not WORKFLOW.exists(), reason="these tests are installed without the recipes"),
    pytest.mark.skipif(
        not shutil.which("faketime"), reason="faketime is not installed (Debian: apt-get install faketime)"
    ),
]
FIRST = date(2026, 10, 6)


class Host:
    """A code host: a bare repository, and the workflow's job, which starts with a fresh checkout each time."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.remote, self.now = folder, folder / "remote.git", datetime(2026, 10, 7, tzinfo=UTC)
        self.job: dict[str, Any] = yaml.safe_load(WORKFLOW.read_text())["jobs"]["record"]
        self.git("init", "--quiet", "--bare", "-b", "main", str(self.remote))
        self.git("clone", "--quiet", str(self.remote), "own")
        (folder / "own" / "README.md").write_text("Mine.\n")
        for command in (("add", "."), ("commit", "--quiet", "-m", "First"), ("push", "--quiet", "origin", "HEAD:main")):
            self.git(*command, at=folder / "own")

    def git(self, *arguments: str, at: Path | None = None) -> str:
        identity = ("-c", "user.name=me", "-c", "user.email=me@example.org")
        command = ["git", *identity, *arguments]
        return subprocess.run(command, cwd=at or self.folder, check=True, capture_output=True, text=True).stdout

    def run(self, base_url: str, *, before_push: str = "") -> tuple[bool, str]:
        """Run the job at `now`. Return whether it succeeded, and what its steps printed."""
        workspace = self.folder / "workspace"
        shutil.rmtree(workspace, ignore_errors=True)
        self.git("clone", "--quiet", str(self.remote), str(workspace))
        values = {"secrets.OPENROUTER_API_KEY": KEY, "github.workspace": str(workspace)}
        own = {
            name: re.sub(r"\$\{\{ (.*?) \}\}", lambda match: values[match[1]], text)
            for name, text in self.job["env"].items()
        }
        programs = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        environment = {"PATH": programs, "HOME": str(self.folder), "ORPIPELINE_BASE_URL": base_url, TESTING: "1", **own}
        succeeded, printed = True, ""
        for step in self.job["steps"]:
            script = step.get("run", "")
            if not script or script.startswith("pip install") or not (succeeded or step.get("if") == "always()"):
                continue
            if before_push and step["name"] == "Keep the archive":
                subprocess.run(["bash", "-c", before_push], cwd=self.folder, check=True, capture_output=True)
            at = f"@{self.now:%Y-%m-%d %H:%M:%S}"
            command = ["faketime", "-f", at, "bash", "-eo", "pipefail", "-c", script]
            ended = subprocess.run(
                command,
                cwd=workspace,
                env={**environment, "TZ": "UTC"},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                check=False,
            )
            printed += ended.stdout
            succeeded = succeeded and ended.returncode == 0
        return succeeded, printed

    def archived(self) -> list[str]:
        """Return the days that the branch `data` has."""
        files = self.git("ls-tree", "-r", "--name-only", "data", at=self.remote).split()
        return sorted({name.split("/")[2] for name in files if name.startswith("raw/task_classifications/")})

    def pages(self) -> set[str]:
        return set(self.git("ls-tree", "-r", "--name-only", "site", at=self.remote).split())


def test_three_days_two_of_them_with_a_fault_are_all_recorded_and_published(tmp_path: Path) -> None:
    host = Host(tmp_path)
    with LocalApi(clock=lambda: host.now) as api:
        morning, evening = timedelta(minutes=25), timedelta(hours=21, minutes=45)
        start = datetime(2026, 10, 7, tzinfo=UTC)

        host.now = start + morning
        succeeded, printed = host.run(api.base_url)
        assert succeeded, printed
        assert host.archived() == ["2026-10-06"]
        assert {"index.html", "2026-10-06/index.html", "published/parquet/task_models.parquet"} <= host.pages()

        host.now = start + timedelta(days=1) + morning  # the API is down: nobody needs to look yet
        api.fail_next(503, times=3)
        succeeded, printed = host.run(api.base_url)
        assert succeeded, printed
        assert "::warning::2026-10-07 is not recorded yet" in printed
        host.now = start + timedelta(days=1) + evening
        assert host.run(api.base_url)[0]
        assert host.archived() == ["2026-10-06", "2026-10-07"]

        host.now = start + timedelta(days=2) + morning  # somebody else has pushed meanwhile
        other = (
            f"rm -rf other && git clone --quiet --branch data {host.remote} other && cd other && touch raw/note && "
            "git add . && git -c user.name=x -c user.email=x@example.org commit --quiet -m Other && git push --quiet"
        )
        succeeded, printed = host.run(api.base_url, before_push=other)
        assert succeeded, printed
        assert host.archived() == ["2026-10-06", "2026-10-07", "2026-10-08"]
        assert {f"2026-10-0{day}/index.html" for day in (6, 7, 8)} <= host.pages()
        assert host.git("rev-list", "--count", "site", at=host.remote).strip() == "1"
        assert not any(
            "warehouse.duckdb" in name
            for name in host.git("ls-tree", "-r", "--name-only", "data", at=host.remote).split()
        )

        host.now = start + timedelta(days=2) + evening  # a wrong key needs a person
        api.fail_next(401, times=1)
        assert not host.run(api.base_url)[0]
