"""Draw the pictures of the documentation from the demo's data: python docs/images/draw.py

It needs Debian's chromium and the extra `test`. `window.svg` is drawn by hand.
"""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.request import urlopen

from playwright.sync_api import sync_playwright
from rich.console import Console

from orpipeline.cli import leaderboard
from orpipeline.cli import terminal as screen
from orpipeline.settings import Settings

HERE = Path(__file__).parent
_FONTS = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace"
_PORT = 3199
_GRAPH = f"http://127.0.0.1:{_PORT}/locations/orpipeline/asset-groups/openrouter/lineage"


def terminal(data: Path) -> None:
    """Draw the leaderboard in the terminal."""
    console = Console(record=True, width=84, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    leaderboard.out = screen.out = console
    console.print("[green]$[/] orpipeline leaderboard --demo --top 9", highlight=False)
    leaderboard.show_leaderboard(Settings(data_dir=data), top=9)
    svg = console.export_svg(title="orpipeline", unique_id="terminal")
    # Rich's picture loads its font from another host; each line's width is fixed, so any monospaced font fits.
    local = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL).replace("Fira Code, monospace", _FONTS)
    HERE.joinpath("terminal.svg").write_text(re.sub(r"[ \t]+$", "", local, flags=re.MULTILINE))


def screens(data: Path) -> None:
    """Take the report's first screen and the asset graph. Shown 880 px wide, their labels have at least 11 px."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 880, "height": 640}, device_scale_factor=1.5)
        page.goto((data / "reports" / "index.html").as_uri())
        page.screenshot(path=HERE / "report.png")
        page = browser.new_page(viewport={"width": 1180, "height": 900}, device_scale_factor=1.5)
        page.goto(_GRAPH)
        page.get_by_text("leaderboard_report").first.wait_for()
        page.wait_for_timeout(5000)  # the layout moves until all states are loaded
        page.screenshot(path=HERE / "asset-graph.png", clip={"x": 262, "y": 170, "width": 884, "height": 660})
        browser.close()


def main() -> None:
    """Run the demo, start its UI, and draw the pictures beside this file."""
    command = Path(sys.executable).with_name("orpipeline")
    with TemporaryDirectory() as folder:
        environment = {**os.environ, "ORPIPELINE_DATA_DIR": folder}
        subprocess.run([command, "demo"], env=environment, check=True, stdout=subprocess.DEVNULL)
        ui = subprocess.Popen([command, "dev", "--demo", "--port", str(_PORT)], env=environment)
        try:
            for _ in range(60):
                time.sleep(1)
                try:
                    urlopen(f"http://127.0.0.1:{_PORT}/server_info")
                    break
                except OSError:
                    continue
            terminal(Path(folder, "demo"))
            screens(Path(folder, "demo"))
        finally:
            ui.terminate()
            ui.wait()


if __name__ == "__main__":
    main()
