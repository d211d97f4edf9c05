"""Run the `orpipeline` command in this process, and end it at a chosen step.

    DOOMED_AT='orpipeline.archive:Archive.put > os:fsync 2' DOOMED_BY=SIGKILL \\
        python -m orpipeline_tests.doomed run

DOOMED_AT is a call, or several calls in order, joined by ` > `. A call is `module:qualified.name`, optionally with a
number: `2` waits for the second call. The process ends before the last of them or, with `after ` in front of it, after
it returns.

DOOMED_BY is the name of a signal, optionally with a size in bytes. `SIGXFSZ 4096` limits the size of files: the kernel
ends the process at the first write beyond the first 4096 bytes of any file. A process can thus end inside DuckDB or
SQLite, in the middle of a write. `full 4096` sets the same limit, but the write fails, as on a full disk.

The named functions are wrapped, so nothing else becomes slower. A tracer would triple the time of each process.
"""

from __future__ import annotations

import functools
import os
import resource
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any


@dataclass
class Step:
    """A call to wait for."""

    after: bool
    target: str
    left: int

    @classmethod
    def read(cls, text: str) -> Step:
        words = text.split()
        after = words[0] == "after"
        target, *count = words[1:] if after else words
        return cls(after, target, int(count[0]) if count else 1)


def main() -> None:
    """Wrap the named functions, then run the command."""
    steps = [Step.read(text) for text in os.environ["DOOMED_AT"].split(">")]
    kind, *size = os.environ["DOOMED_BY"].split()

    def passed(after: bool, target: str) -> None:
        if not steps or (steps[0].after, steps[0].target) != (after, target):
            return
        steps[0].left -= 1
        if not steps[0].left:
            del steps[0]
            if not steps:
                _end(kind, *map(int, size))

    # Modules that import a function by name must be loaded before it is replaced.
    import_module("orpipeline.definitions")
    from orpipeline.cli.app import main as command

    for target in {step.target for step in steps}:
        _wrap(target, passed)
    command()


def _end(kind: str, *size: int) -> None:
    if not size:
        os.kill(os.getpid(), signal.Signals[kind])
        return
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (size[0], size[0]))
    # Python ignores this signal by default, and then the write fails.
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN if kind == "full" else signal.SIG_DFL)


def _wrap(target: str, passed: Callable[[bool, str], None]) -> None:
    module, _, name = target.partition(":")
    *owners, last = name.split(".")
    owner: Any = functools.reduce(getattr, owners, import_module(module))
    original = getattr(owner, last)

    @functools.wraps(original)
    def counted(*arguments: object, **named: object) -> object:
        passed(False, target)
        result = original(*arguments, **named)
        passed(True, target)
        return result

    setattr(owner, last, counted)
    if owners:
        return
    for other in list(sys.modules.values()):
        if getattr(other, "__name__", "").startswith("orpipeline.") and vars(other).get(last) is original:
            setattr(other, last, counted)


if __name__ == "__main__":
    main()
