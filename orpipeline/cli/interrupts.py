"""Ctrl-C (SIGINT) and SIGTERM: the first one ends a command in order, a second one ends the process at once.

Dagster replaces the handlers during a run, and raises its own error wherever the run happens to be. So signals are not
counted in a handler: Python writes the number of each signal to a pipe, whatever its handler is, and a thread reads it.
That also works while a library computes without returning to Python.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

EXIT_CODE = 130
"""The exit code of an interrupted command, as of a program that SIGINT ends."""

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_LINE = b"orpipeline: interrupted; the archive and the tables are consistent.\n"
_SHOW_CURSOR = b"\x1b[?25h"  # Rich hides it while it shows progress
_STDERR = 2
_READ_SECONDS = 0.5  # far more than the thread needs to read a signal


class Interrupts:
    """The signals of this process, from the moment that it is created: once, in the main thread.

    The first SIGINT or SIGTERM raises KeyboardInterrupt in the main thread, or what Dagster makes of it. The second one
    ends the process with `EXIT_CODE`, as if it was killed; archive and tables stay consistent if that happens. Either
    prints the same line, once, and no traceback.
    """

    def __init__(self) -> None:
        self._arrived, self._may_raise = threading.Event(), True
        self._printing, self._printed = threading.Lock(), False
        # Signals wait until all is ready; the thread gets none, so that they interrupt what the main thread waits for.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        for number in _SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:  # as in the background of a shell script
                signal.signal(number, self._raise)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        threading.Thread(target=self._watch, args=(reader,), daemon=True).start()
        sys.excepthook, sys.unraisablehook = self._on_uncaught, self._on_unraisable
        # Registered first and therefore called last: all that is left to do cannot be interrupted.
        atexit.register(_ignore)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def print_line(self) -> None:
        """Print that the command was interrupted, unless that is already printed."""
        with self._printing:
            if not self._printed:
                with suppress(OSError):  # nobody can read it any more
                    os.write(_STDERR, _LINE)
                self._printed = True

    def finish(self) -> None:
        """Let a first signal no longer raise an error, because the process is about to end."""
        self._may_raise = False

    def _raise(self, *_: object) -> None:
        if self._may_raise:
            self._may_raise = False
            raise KeyboardInterrupt

    def _watch(self, reader: int) -> None:
        count = 0
        while count < 2:
            count += sum(number in _SIGNALS for number in os.read(reader, 64))
            if count:
                self._arrived.set()
        self._end()

    def _end(self) -> NoReturn:
        if os.isatty(_STDERR):
            os.write(_STDERR, _SHOW_CURSOR + b"\n")  # below the terminal's `^C`
        self.print_line()
        os._exit(EXIT_CODE)

    def _on_uncaught(self, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if self._is_interrupt(kind):
            self._end()
        sys.__excepthook__(kind, error, trace)

    def _on_unraisable(self, unraisable: UnraisableHookArgs) -> None:
        # Where Python cannot raise an error, such as in a finalizer, it prints the error and goes on.
        if self._is_interrupt(unraisable.exc_type):
            self._end()
        sys.__unraisablehook__(unraisable)

    def _is_interrupt(self, kind: type[BaseException]) -> bool:
        """Return whether a signal has caused an error: Dagster's kind of KeyboardInterrupt is not an Exception, too."""
        if issubclass(kind, Exception):
            return False
        self.finish()
        return self._arrived.wait(_READ_SECONDS)


def _ignore() -> None:
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
