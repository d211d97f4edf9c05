"""Measures the install size and the import time of the plain package and of each extra. Prints Markdown tables.

    python benchmarks/install.py [WHEEL]

Each is installed into a new environment, from the clone or from a built wheel, with uv, which the extra `dev` installs.
Sizes are megabytes on disk, without the empty environment and without bytecode. Times are the medians of new processes.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from importlib.metadata import distributions
from pathlib import Path
from statistics import median

CLONE = Path(__file__).resolve().parents[1]
INSTALLED = ("", "ui", "test", "dev")
LARGEST, RUNS = 15, 5
MEGABYTE = 1e6
COMMANDS = {
    "nothing": ("python", "-c", ""),
    "`import orpipeline`": ("python", "-c", "import orpipeline"),
    "`orpipeline.build_defs`": ("python", "-c", "import orpipeline; orpipeline.build_defs"),
    "the code location": ("python", "-c", "from orpipeline.definitions import defs; defs.get_repository_def()"),
    "`orpipeline --help`": ("orpipeline", "--help"),
}


def main(source: Path) -> None:
    """Measure each install, and print the tables."""
    with tempfile.TemporaryDirectory(prefix="orpipeline-install-") as made:
        temporary = Path(made)
        empty = _megabytes(_environment(temporary / "empty"))
        print("| installed", "packages", "MB", *COMMANDS, sep=" | ", end=" |\n")
        print("| --- " * (3 + len(COMMANDS)) + "|")
        for extra in INSTALLED:
            environment = _environment(temporary / (extra or "plain"), f"{source}[{extra}]" if extra else str(source))
            packages = len(list(distributions(path=[str(path) for path in environment.glob("lib/*/site-packages")])))
            size = _megabytes(environment) - empty
            times = [f"{_seconds(environment, command, temporary):.2f} s" for command in COMMANDS.values()]
            print(
                f"| `orpipeline{f'[{extra}]' if extra else ''}`", packages, f"{size:.0f}", *times, sep=" | ", end=" |\n"
            )
        print(f"\nThe {LARGEST} largest packages of the plain install:\n\n| package | MB |\n| --- | --- |")
        for name, size in _largest(temporary / "plain"):
            print(f"| {name} | {size:.1f} |")


def _environment(folder: Path, requirement: str | None = None) -> Path:
    uv = [sys.executable, "-m", "uv", "--quiet"]
    subprocess.run([*uv, "venv", "--python", sys.executable, str(folder)], check=True)
    if requirement:
        install = ["pip", "install", "--link-mode", "copy", "--python", str(folder / "bin" / "python"), requirement]
        subprocess.run([*uv, *install], check=True)
    return folder


def _megabytes(folder: Path) -> float:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file() and not file.is_symlink()) / MEGABYTE


def _largest(environment: Path) -> list[tuple[str, float]]:
    (site,) = environment.glob("lib/*/site-packages")
    sizes = {
        f"{package.name} {package.version}": sum(
            Path(str(package.locate_file(file))).stat().st_size
            for file in package.files or []
            if file.suffix != ".pyc" and Path(str(package.locate_file(file))).is_file()
        )
        / MEGABYTE
        for package in distributions(path=[str(site)])
    }
    return sorted(sizes.items(), key=lambda item: -item[1])[:LARGEST]


def _seconds(environment: Path, command: tuple[str, ...], folder: Path) -> float:
    """Return the median time of new processes; the first one, which compiles the modules, does not count."""
    program = environment / "bin" / command[0]
    own = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("ORPIPELINE_", "DAGSTER_"))},
        "ORPIPELINE_DATA_DIR": str(folder / "data"),
    }
    took = []
    for _ in range(RUNS + 1):
        start = time.perf_counter()
        subprocess.run([str(program), *command[1:]], check=True, cwd=folder, env=own, stdout=subprocess.DEVNULL)
        took.append(time.perf_counter() - start)
    return median(took[1:])


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else CLONE)
