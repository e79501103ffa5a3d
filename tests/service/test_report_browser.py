"""The page of a report in a real browser: it fits the window, and asks for nothing."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image
from rich_report import rich_report

from camera_trap_al.exporters.report_page import report_page

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
BROWSER = next((found for name in NAMES if (found := shutil.which(name))), None)
QUIET = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars")
MEASURE = (
    "<script>document.querySelectorAll('details').forEach(e => e.open = true);"
    "parent.postMessage(document.documentElement.scrollWidth + ' ' + innerWidth, '*')</script>"
)
# A window of a browser without a screen is never narrower than 500 pixels, a frame in it is.
FRAME = (
    "<!DOCTYPE html><script>addEventListener('message',"
    " e => document.documentElement.setAttribute('data-width', e.data))</script>"
    '<iframe src="measured.html" width="{}" height="2000" frameborder="0"></iframe>'
)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason=f"no browser is installed: none of {', '.join(NAMES)}"),
]


def browse(page: Path, width: int, height: int, *options: str) -> tuple[str, str]:
    """Open a page; return what the browser writes on its two outputs."""
    assert BROWSER is not None
    command: Sequence[str] = [
        *(BROWSER, *QUIET, f"--user-data-dir={page.parent / 'profile'}", f"--window-size={width},{height}"),
        *("--enable-logging=stderr", "--virtual-time-budget=3000", *options, page.as_uri()),
    ]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", errors="replace", timeout=180)
    return done.stdout, done.stderr


@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_fits_its_window_and_asks_for_nothing(tmp_path: Path, width: int) -> None:
    page = tmp_path / "report.html"
    page.write_bytes(report_page(rich_report()))
    picture = tmp_path / "screen.png"
    _, said = browse(page, width, 2000, f"--screenshot={picture}")
    # Whatever the policy refuses, and each file that cannot be had, is a line of the console.
    assert "CONSOLE" not in said
    with Image.open(picture) as seen:
        assert seen.size == (width, 2000)
        assert len(seen.convert("RGB").getcolors(1 << 24) or ()) > 50
    text = page.read_text(encoding="utf-8")
    # The policy forbids scripts, so the width is measured in a copy without one.
    measured = tmp_path / "measured.html"
    measured.write_text(
        re.sub("<meta http-equiv[^>]*>", "", text).replace("</body>", f"{MEASURE}</body>"), encoding="utf-8"
    )
    (tmp_path / "frame.html").write_text(FRAME.format(width), encoding="utf-8")
    document, _ = browse(tmp_path / "frame.html", 1400, 2100, "--dump-dom")
    found = re.search(r'data-width="(\d+) (\d+)"', document)
    assert found is not None
    assert int(found[1]) <= int(found[2]) == width


def test_the_policy_refuses_what_a_page_would_fetch_or_run(tmp_path: Path) -> None:
    """Were the console silent for another reason, the test above would say nothing."""
    page = tmp_path / "report.html"
    planted = '<script>1</script><img src="planted.png" alt="planted"></body>'
    page.write_text(report_page(rich_report()).decode("utf-8").replace("</body>", planted), encoding="utf-8")
    _, said = browse(page, 800, 600, "--dump-dom")
    assert said.count("CONSOLE") >= 2
