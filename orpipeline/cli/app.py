"""The program `orpipeline`. It imports the commands only when signals can no longer print a traceback."""

from __future__ import annotations

import sys

from orpipeline.cli.interrupts import EXIT_CODE, Interrupts


def main() -> None:
    """Run the command line and exit: 0 done, 1 failed, 2 wrong use, 130 interrupted."""
    interrupts = Interrupts()
    try:
        from orpipeline.cli.commands import execute

        code = execute(sys.argv[1:])
        interrupts.finish()
    except KeyboardInterrupt:
        interrupts.print_line()
        code = EXIT_CODE
    sys.exit(code)


if __name__ == "__main__":
    main()
