"""Follows `docs/building-on.md` word for word, as a reader does, and checks what came of it.

    python -m orpipeline_tests.tutorial [--wheel PATH] [--folder PATH]    # follow it; builds a wheel if none is given
    python -m orpipeline_tests.tutorial --write-example                   # examples/downstream, from the page

A paragraph that ends with a name such as "`market/code_models.py`:" makes the block below it a file. Other `sh` blocks
are commands, and those below "In a second terminal:" run beside the rest. The page installs orpipeline by its name; pip
finds the built wheel, because no package index has the name.
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from markdown_it import MarkdownIt

PROJECT = Path(__file__).parents[1]
PAGE = PROJECT / "docs" / "building-on.md"
EXAMPLE = PROJECT / "examples" / "downstream"
OWN_FILES = {"README.md", ".gitignore"}
"""The files of the example that are not on the page."""
_FILE = re.compile(r"`([\w./-]+)`:$")
_SECOND_TERMINAL = "In a second terminal:"
_AUTOMATION = "market_automation"
_LOG = "second-terminal.log"
_NEW_DAY = "orpipeline import new-day"
_FOREIGN = ("ORPIPELINE_", "OPENROUTER_", "DAGSTER_", "PYTHON", "VIRTUAL_ENV")
_TIMEOUT_SECONDS = 1200


@dataclass(frozen=True)
class Block:
    """A block of the page: a file's text if it has a `path`, otherwise commands."""

    text: str
    path: str | None = None
    in_second_terminal: bool = False


def blocks(page: str) -> Iterator[Block]:
    """Yield the page's blocks that are files or commands, in order."""
    paragraph = ""
    for token in MarkdownIt("commonmark").parse(page):
        if token.type == "inline":
            paragraph = token.content
        elif token.type == "fence":
            named = _FILE.search(paragraph)
            if named:
                yield Block(token.content, named[1])
            elif token.info == "sh":
                yield Block(token.content, in_second_terminal=paragraph.endswith(_SECOND_TERMINAL))
            paragraph = ""


def files(page: str) -> dict[str, str]:
    """Return the files of the page by path, each as it is at the page's end."""
    return {block.path: block.text for block in blocks(page) if block.path}


def write_example() -> None:
    """Write the page's files into the example."""
    for path, text in files(PAGE.read_text()).items():
        target = EXAMPLE / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)


def script(page: str) -> str:
    """Return a bash script that does what the page tells the reader to do, and prints when each part begins."""
    # Dagster's daemon can survive an interrupt in the middle of its work.
    lines = ["set -euo pipefail", f"trap '[ ! -f {_LOG}.pid ] || kill -KILL -- -$(cat {_LOG}.pid)' EXIT"]
    for number, block in enumerate(blocks(page)):
        if block.path:
            lines.append(_write_file(block.path, block.text, f"END_OF_FILE_{number}"))
            continue
        lines.append(f'printf "== %5.1f s  %s\\n" "$(bc <<< "$(date +%s.%N) - $BEGAN")" {_title(block.text)}')
        if block.in_second_terminal:
            lines.append(f"set -m; ( {block.text} ) >{_LOG} 2>&1 & echo $! >{_LOG}.pid; set +m")
            continue
        if block.text.startswith(_NEW_DAY):  # a reader is slower than the sensor's first tick
            lines.append(f"timeout 60 bash -c 'until grep -q {_AUTOMATION} {_LOG}; do sleep 0.2; done'")
        lines.append(block.text)
    check = Path(__file__).with_name("tutorial_check.py")
    lines += ['printf "== the check\\n"', f"PYTHONPATH=. python {shlex.quote(str(check))}"]
    return "\n".join(lines)


def follow(wheel: Path, folder: Path) -> None:
    """Follow the page in an empty folder. Raises CalledProcessError if a command or the check fails."""
    _wait_out_midnight()
    began = time.time()
    subprocess.run(
        ["bash", "-c", script(PAGE.read_text())],
        cwd=folder,
        env=_environment(wheel, folder, began),
        stdin=subprocess.DEVNULL,
        timeout=_TIMEOUT_SECONDS,
        check=True,
    )
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(f"== {time.time() - began:5.1f} s  done, with {used.ru_utime + used.ru_stime:.0f} s of processor time")


def build_wheel(folder: Path) -> Path:
    """Build the project's wheel into a folder, and return its path."""
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(PROJECT)]
    subprocess.run(command, check=True)
    (wheel,) = folder.glob("orpipeline-*.whl")
    return wheel


def _write_file(path: str, text: str, end: str) -> str:
    folder = Path(path).parent
    return f"mkdir -p {shlex.quote(str(folder))}\ncat >{shlex.quote(path)} <<'{end}'\n{text}{end}"


def _title(commands: str) -> str:
    return shlex.quote(next(line for line in reversed(commands.splitlines()) if line.strip())[:90])


def _environment(wheel: Path, folder: Path, began: float) -> Mapping[str, str]:
    """Return an environment without a key and without this machine's settings, in which `python3` is this one."""
    tools = folder.parent / f"{folder.name}-tools"
    tools.mkdir()
    (tools / "python3").symlink_to(getattr(sys, "_base_executable", sys.executable))
    links = " ".join(filter(None, [str(wheel.resolve().parent), os.environ.get("PIP_FIND_LINKS")]))
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}
    return {
        **inherited,
        "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}",
        "PIP_FIND_LINKS": links,
        "PIP_QUIET": "1",
        "PIP_NO_COMPILE": "0",  # turns compilation off, in spite of the name: only what is imported is compiled, later
        "PYTHONWARNINGS": "ignore",
        "ORPIPELINE_TESTING": "1",  # no request leaves this machine
        "DO_NOT_TRACK": "1",
        "NO_COLOR": "1",
        "BEGAN": str(began),
    }


def _wait_out_midnight() -> None:
    """Wait until a new UTC day has begun, if that is near: the page's `day 1` would change on the way."""
    later = datetime.now(UTC) + timedelta(minutes=5)
    midnight = later.replace(hour=0, minute=0, second=1)
    if later.date() != datetime.now(UTC).date():
        time.sleep((midnight - datetime.now(UTC)).total_seconds())


def main() -> None:
    """Follow the page, or write the example."""
    parser = argparse.ArgumentParser(description="Follow docs/building-on.md in a fresh folder.")
    parser.add_argument(
        "--wheel",
        type=Path,
        default=os.environ.get("ORPIPELINE_WHEEL"),
        help="orpipeline's wheel; by default ORPIPELINE_WHEEL, and built if that is not set",
    )
    parser.add_argument("--folder", type=Path, help="where to follow the page; kept. By default a temporary folder")
    parser.add_argument("--write-example", action="store_true", help="write examples/downstream from the page instead")
    given = parser.parse_args()
    if given.write_example:
        write_example()
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with tempfile.TemporaryDirectory(prefix="building-on-") as temporary:
        root = given.folder or Path(temporary)
        shutil.rmtree(root / "reader", ignore_errors=True)
        shutil.rmtree(root / "reader-tools", ignore_errors=True)
        (root / "reader").mkdir(parents=True)
        wheel = given.wheel or build_wheel(Path(temporary))
        try:
            follow(wheel, root / "reader")
        except subprocess.CalledProcessError as error:
            log = root / "reader" / _LOG
            if log.exists():
                print(f"== the second terminal\n{log.read_text()[-3000:]}", file=sys.stderr)
            sys.exit(f"Following docs/building-on.md failed with exit code {error.returncode}.")


if __name__ == "__main__":
    main()
