"""Runs the `orpipeline` command in this process up to a chosen moment, and strikes itself there.

    DOOMED_AT='orpipeline.archive.folder:_write_synced 2' DOOMED_BY=SIGKILL python -m orpipeline_tests.doomed run

DOOMED_AT is one step, or several joined by ` > ` that come one after the other; a step is
`module:qualified.name`, with a number (the how-manieth call, 1 if left out), and strikes before that call or, with
`after ` in front of it, when it has returned. DOOMED_BY is a signal's name. `SIGXFSZ 4096` is the end by the kernel
at the first write beyond that byte of any file: a moment within DuckDB or SQLite, where no call of Python's is.
`full 4096` ends nothing: from then on, the disk is full for files beyond that size.

It counts calls by wrapping the functions that are named, which costs nothing elsewhere; a tracer would see the same
moments and make each process three times as slow.
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
    """Lay the steps in wait, then be the command."""
    steps = [Step.read(text) for text in os.environ["DOOMED_AT"].split(">")]
    kind, *size = os.environ["DOOMED_BY"].split()

    def passed(after: bool, target: str) -> None:
        if not steps or (steps[0].after, steps[0].target) != (after, target):
            return
        steps[0].left -= 1
        if not steps[0].left:
            del steps[0]
            if not steps:
                _strike(kind, *map(int, size))

    # The modules that take over names from others must all be there before a function is replaced.
    import_module("orpipeline.definitions")
    from orpipeline.cli.app import main as command

    for target in {step.target for step in steps}:
        _wrap(target, passed)
    command()


def _strike(kind: str, *size: int) -> None:
    if not size:
        os.kill(os.getpid(), signal.Signals[kind])
        return
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (size[0], size[0]))
    # Python ignores this signal, so that such a write is an error; otherwise it is the process's end.
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
