"""Draw `terminal.svg`, the leaderboard of the demo's data for one fixed day: python docs/images/make_terminal.py"""

from __future__ import annotations

import io
import re
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console

from orpipeline.archive import Archive
from orpipeline.cli import leaderboard, output
from orpipeline.load import load_days
from orpipeline.settings import Settings
from orpipeline.testing import sample_response
from orpipeline.warehouse.warehouse import open_warehouse

DAY = date(2026, 11, 22)
_FONTS = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace"


def main() -> None:
    """Write the picture beside this file."""
    console = Console(record=True, width=80, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    leaderboard.out = output.out = console
    console.print("[green]$[/] orpipeline leaderboard --demo --top 12", highlight=False)
    with TemporaryDirectory() as folder:
        settings, days = Settings(data_dir=Path(folder)), [DAY - timedelta(days=7), DAY]
        archive = Archive(settings.archive)
        for day in days:
            fetched_at = datetime.combine(day + timedelta(days=1), time(0, 20), UTC)
            archive.put(sample_response(day), fetched_at=fetched_at, source="a picture", origin="demo")
        load_days(archive, open_warehouse(settings), days, now=fetched_at)
        leaderboard.show_leaderboard(settings, top=12)
    svg = console.export_svg(title="orpipeline", unique_id="terminal")
    # Rich's picture loads its font from another host; each line's width is fixed, so any monospaced font fits.
    local = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL).replace("Fira Code, monospace", _FONTS)
    Path(__file__).with_name("terminal.svg").write_text(re.sub(r"[ \t]+$", "", local, flags=re.MULTILINE))


if __name__ == "__main__":
    main()
