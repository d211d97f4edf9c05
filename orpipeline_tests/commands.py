"""Running the installed `orpipeline` command as a person would: a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

ORPIPELINE = Path(sys.executable).with_name("orpipeline")


def run_command(
    *arguments: str, folder: Path, environment: Mapping[str, str] | None = None, timeout: float = 120
) -> subprocess.CompletedProcess[str]:
    """Run `orpipeline` in a folder, with nothing of orpipeline's or Dagster's in the environment but what is given."""
    foreign = ("ORPIPELINE_", "OPENROUTER_", "DAGSTER_")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    return subprocess.run(
        [str(ORPIPELINE), *arguments],
        cwd=folder,
        env={**inherited, "COLUMNS": "100", "NO_COLOR": "1", **(environment or {})},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
