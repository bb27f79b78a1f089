"""docs/options.md is made from the fields and must be current."""

from __future__ import annotations

from pathlib import Path

from eyas.config import option_names
from eyas.config.docs import main, render

PAGE = Path(__file__).parents[3] / "docs" / "options.md"


def test_the_committed_page_is_current():
    assert PAGE.read_text(encoding="utf-8") == render(), "run `python -m eyas.config.docs`"


def test_every_option_has_one_row():
    rows = [line for line in render().splitlines() if line.startswith("| `")]
    documented = [row.split("`")[1] for row in rows]
    assert documented[: len(option_names())] and set(option_names()) <= set(documented)
    assert len(documented) == len(set(documented))


def test_check_reports_a_stale_page(tmp_path, capsys):
    page = tmp_path / "options.md"
    assert main([str(page)]) == 0
    assert main(["--check", str(page)]) == 0
    page.write_text("old", encoding="utf-8")
    assert main(["--check", str(page)]) == 1
    assert "not current" in capsys.readouterr().err
