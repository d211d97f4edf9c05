"""Checks the built packages without the repository. Prints a line for each check, and ends at the first that fails.

    python .ci/wheel.py FOLDER

FOLDER has one wheel and one sdist, which `python -m build` has made. The Python that runs this needs `build` and `uv`,
which the extra `dev` installs. The wheel is installed with the extra `ui` into a new environment, and runs in an empty
folder with a new home.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

CLONE = Path(__file__).resolve().parents[1]
COPIED = {"orpipeline/dagster.yaml", "orpipeline/workspace.yaml"}
"""Files that the wheel has from the clone's top folder."""
SDIST_ONLY = ("orpipeline_tests/", "docs/", "benchmarks/", "deploy/", "examples/")
START_SECONDS = 60
QUERY = "{ workspaceOrError { ... on Workspace { locationEntries { name locationOrLoadError { __typename } } } } }"


def main(folder: Path) -> None:
    """Check the packages in a folder."""
    # A shell lets its background jobs, and all that they start, ignore Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    with tempfile.TemporaryDirectory(prefix="orpipeline-wheel-") as made:
        temporary = Path(made)
        check_contents(wheel, sdist)
        check_that_clone_and_sdist_build_the_same(wheel, sdist, temporary)
        programs = install(wheel, temporary / "environment")
        check_commands(programs, temporary)


def passed(text: str) -> None:
    """Print a check that passed."""
    print(f"ok: {text}", flush=True)


def contents(wheel: Path) -> dict[str, bytes]:
    """Return a wheel's files by name."""
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def check_contents(wheel: Path, sdist: Path) -> None:
    """The wheel has the package and no other file of the clone; the sdist has the tests and what they read, too."""
    names = contents(wheel).keys()
    ours = ("ls-files", "--cached", "--others", "--exclude-standard")
    in_git = set(run("git", *ours, folder=CLONE).splitlines())
    package = {name for name in in_git if name.startswith("orpipeline/")}
    installed = {name for name in names if ".dist-info/" not in name}
    assert installed == package | COPIED, sorted(installed ^ (package | COPIED))
    with tarfile.open(sdist) as archive:
        packed = {name.partition("/")[2] for name in archive.getnames()}
    wanted = {name for name in in_git if name.startswith(("orpipeline/", *SDIST_ONLY)) or name.endswith(".md")}
    assert wanted <= packed, sorted(wanted - packed)
    passed(f"the wheel has the {len(installed)} files of the package alone; the sdist has {len(packed)} files")


def check_that_clone_and_sdist_build_the_same(wheel: Path, sdist: Path, temporary: Path) -> None:
    """`build` has made the wheel from the sdist; the clone gives the same files with the same bytes."""
    build = (sys.executable, "-m", "build", "--wheel", "--outdir", str(temporary / "from-clone"), str(CLONE))
    run(*build, folder=temporary)
    (other,) = (temporary / "from-clone").glob("*.whl")
    ours, theirs = contents(wheel), contents(other)
    different = {name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name)}
    assert not different, f"{sdist.name} and the clone build different wheels: {sorted(different)}"
    passed("the sdist and the clone build the same wheel")


def install(wheel: Path, environment: Path) -> Path:
    """Install the wheel with the Dagster UI into a new environment, and return the folder of its programs."""
    start = time.monotonic()
    uv = (sys.executable, "-m", "uv", "--quiet")
    run(*uv, "venv", "--python", sys.executable, str(environment), folder=environment.parent)
    python = environment / "bin" / "python"
    run(*uv, "pip", "install", "--python", str(python), f"{wheel}[ui]", folder=environment.parent)
    passed(f"the wheel is installed with the extra `ui` ({time.monotonic() - start:.0f} s)")
    return environment / "bin"


def check_commands(programs: Path, temporary: Path) -> None:
    """The commands work in an empty folder, with the data in the user data folder, and write nowhere else."""
    folder, home = temporary / "current", temporary / "home"
    folder.mkdir()
    home.mkdir()
    environment = {"PATH": f"{programs}:/usr/bin:/bin", "HOME": str(home), "DAGSTER_DISABLE_TELEMETRY": "yes"}
    where = "from platformdirs import user_data_path; print(user_data_path('orpipeline', appauthor=False))"
    data = Path(run("python", "-c", where, folder=folder, environment=environment).strip())
    before = site_packages(programs)

    doctor = run("orpipeline", "doctor", folder=folder, environment=environment, code=1)
    assert "OPENROUTER_API_KEY" in doctor, doctor
    assert not list(home.iterdir()), "doctor created files"
    passed("doctor: exit code 1 without a key, and nothing is written")

    shown = run("orpipeline", "demo", "--days", "2", folder=folder, environment=environment)
    assert str(data / "demo") in shown.replace("\n", ""), shown
    assert (data / "demo" / "warehouse.duckdb").stat().st_size
    assert (data / "demo" / "reports" / "index.html").stat().st_size
    passed(f"demo: the report is in {data.relative_to(home)}/demo")

    # Without DAGSTER_HOME, Dagster itself writes into the current folder; without this setting, into HOME.
    its_own = {**environment, "DAGSTER_HOME": str(temporary / "dagster")}
    Path(its_own["DAGSTER_HOME"]).mkdir()
    (temporary / "dagster" / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    for name, command, variables in (
        ("orpipeline dev", ["orpipeline", "dev"], environment),
        ("dagster dev -m orpipeline.definitions", ["dagster", "dev", "-m", "orpipeline.definitions"], its_own),
    ):
        start = time.monotonic()
        with server(command, folder, variables) as url:
            locations = loaded_locations(url)
        assert set(locations.values()) == {"RepositoryLocation"}, locations
        passed(f"{name}: the UI is up and the code location loads ({time.monotonic() - start:.0f} s)")

    assert {path.name for path in data.iterdir()} == {"demo", "dagster"}
    assert not list(folder.iterdir()), f"written into the current folder: {list(folder.iterdir())}"
    assert site_packages(programs) == before, "written into site-packages"
    others = [path for path in home.rglob("*") if path.is_file() and data not in path.parents]
    assert not others, f"written outside the data folder: {others}"
    passed("nothing is written into the current folder, site-packages or another place")


def site_packages(programs: Path) -> set[tuple[str, int]]:
    """Return the environment's files with their sizes, without the bytecode."""
    files = (path for path in (programs.parent / "lib").rglob("*") if path.is_file() and path.suffix != ".pyc")
    return {(str(path), path.stat().st_size) for path in files}


@contextmanager
def server(command: list[str], folder: Path, environment: Mapping[str, str]) -> Iterator[str]:
    """Run a program that serves the Dagster UI on a free port, and yield its address. It must end on Ctrl-C."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = shutil.which(command[0], path=environment["PATH"])
    assert program, command[0]
    log = Path(environment["HOME"]).parent / "server.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [program, *command[1:], "--port", str(port)],
            cwd=folder,
            env=dict(environment),
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield f"http://127.0.0.1:{port}"
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        process.wait(timeout=90)
    except BaseException:
        print(log.read_text()[-4000:], file=sys.stderr)
        raise
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


def loaded_locations(url: str) -> Mapping[str, str]:
    """Wait for the UI, and return its code locations' names and what Dagster has for them: the location or an error."""
    request = urllib.request.Request(
        f"{url}/graphql", json.dumps({"query": QUERY}).encode(), {"Content-Type": "application/json"}
    )
    until = time.monotonic() + START_SECONDS
    while True:
        try:
            with urllib.request.urlopen(request, timeout=10) as response:
                entries = json.load(response)["data"]["workspaceOrError"]["locationEntries"]
            return {entry["name"]: entry["locationOrLoadError"]["__typename"] for entry in entries}
        except urllib.error.URLError:
            if time.monotonic() > until:
                raise
            time.sleep(0.2)


def run(program: str, *arguments: str, folder: Path, environment: Mapping[str, str] = os.environ, code: int = 0) -> str:
    """Run a program of the environment's PATH, and return what it printed. Its exit code must be `code`."""
    path = shutil.which(program, path=environment["PATH"])
    assert path, f"{program} is not on PATH"
    done = subprocess.run(
        [path, *arguments], cwd=folder, env=dict(environment), capture_output=True, text=True, check=False
    )
    assert done.returncode == code, f"{program} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
    return done.stdout


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
