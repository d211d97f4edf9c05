"""The program `orpipeline`. It handles signals first, and imports the commands then: imports take a while."""

from __future__ import annotations

import logging
import os
import signal
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

_EXIT_CODE = 130  # as of a program that SIGINT ends
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_LINE = b"orpipeline: interrupted; the archive and the tables are consistent.\n"
_SHOW_CURSOR = b"\x1b[?25h"  # Rich hides it while it shows progress
_STDERR = 2


def main() -> None:
    """Run the command line and exit: 0 done, 1 failed, 2 wrong use, 130 interrupted."""
    sys.unraisablehook = _on_unraisable
    for number in _SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as in the background of a shell script
            signal.signal(number, _interrupt)
    try:
        from orpipeline.cli.commands import execute

        code = execute(sys.argv[1:])
    except BaseException as error:
        if not _is_interrupt(type(error)):
            raise
        _end()
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)  # there is nothing left to interrupt
    sys.exit(code)


def _interrupt(*_: object) -> None:
    """Raise KeyboardInterrupt for the first signal, and end the process at the second, as if it was killed.

    Dagster has its own handlers while a run works: they make a signal the step's failure.
    """
    for number in _SIGNALS:
        signal.signal(number, lambda *_: _end())
    logging.disable()  # some libraries log an error that they do not raise
    raise KeyboardInterrupt


def _end() -> NoReturn:
    """Print one line, and end the process at once."""
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    with suppress(OSError):  # nobody can read it any more
        os.write(_STDERR, (_SHOW_CURSOR + b"\n" if os.isatty(_STDERR) else b"") + _LINE)  # below the terminal's `^C`
    os._exit(_EXIT_CODE)


def _on_unraisable(unraisable: UnraisableHookArgs) -> None:
    # Where Python cannot raise an error, such as in a finalizer, it prints the error and goes on.
    if _is_interrupt(unraisable.exc_type):
        _end()
    sys.__unraisablehook__(unraisable)


def _is_interrupt(kind: type[BaseException]) -> bool:
    # Dagster's kind of KeyboardInterrupt takes long to import.
    return issubclass(kind, KeyboardInterrupt) or kind.__name__ == "DagsterExecutionInterruptedError"


if __name__ == "__main__":
    main()
