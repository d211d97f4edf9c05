"""The program `orpipeline`. It handles signals first, and imports the commands then: imports take a while."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from typing import NoReturn

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_EXIT_CODE = 130  # as of a program that SIGINT ends
_LINE = b"orpipeline: interrupted; the archive and the tables are consistent.\n"
_SHOW_CURSOR = b"\x1b[?25h"  # Rich hides it while it shows progress
_STDERR = 2


def main() -> None:
    """Run the command line and exit: 0 done, 1 failed, 2 wrong use, 130 interrupted."""
    for number in _SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as in the background of a shell script
            signal.signal(number, _end)
    try:
        from orpipeline.cli.commands import execute

        code = execute(sys.argv[1:])
    except BaseException as error:
        # Dagster has its own handler while a run works: it makes a signal the step's failure. Its kind of
        # KeyboardInterrupt takes long to import.
        if not isinstance(error, KeyboardInterrupt) and type(error).__name__ != "DagsterExecutionInterruptedError":
            raise
        _end()
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)  # there is nothing left to interrupt
    sys.exit(code)


def _end(*_: object) -> NoReturn:
    """Print one line, and end the process at once: as after a kill, the next command finds nothing half-written."""
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    with suppress(OSError):  # nobody can read it any more
        os.write(_STDERR, (_SHOW_CURSOR + b"\n" if os.isatty(_STDERR) else b"") + _LINE)  # below the terminal's `^C`
    os._exit(_EXIT_CODE)


if __name__ == "__main__":
    main()
