"""The page of a real run, also of one that goes on, and in a real browser where there is one."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from eyas.train import DetectionTrainer

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
OWN = ("google.com/", "gvt1.com/", "googleapis.com/")  # hosts that Chromium asks by itself, whatever it shows


@pytest.fixture(scope="module")
def folder(shared_options: Any) -> Path:
    """Folder of a run of two epochs that went on for a third."""
    given = shared_options(epochs=2, batch=8, fraction=0.125, imgsz=32, report=True, loggers="jsonl")
    first = DetectionTrainer(overrides=given)
    first.train()
    assert "2 of 2" in (first.save_dir / "report.html").read_text()
    DetectionTrainer(overrides={"resume": str(first.last), "epochs": 3}).train()
    return first.save_dir


def test_a_run_that_goes_on_keeps_all_its_epochs(folder: Path) -> None:
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "3 of 3" in page and ">finished</span>" in page
    (numbers,) = re.findall(r'aria-label="mAP50 over epochs" data-numbers="(.*?)"', page)
    assert json.loads(numbers.replace("&quot;", '"'))["lines"][0][1] == [1.0, 2.0, 3.0]
    for title in ("Curves", "Classes", "Confusion", "Worst images", "Plan", "What the settings did", "Machine"):
        assert f"<h2>{title}" in page, title
    assert 1 <= page.count("data:image/jpeg;base64,") <= 12
    assert len(page.encode()) < 2_000_000


def test_the_events_of_both_parts_are_in_one_file(folder: Path) -> None:
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    assert [(e["event"], e.get("epoch")) for e in events if e["event"] in ("started", "epoch")] == [
        ("started", 0), ("epoch", 1), ("epoch", 2), ("started", 2), ("epoch", 3),
    ]  # fmt: skip
    assert [e["event"] for e in events[-2:]] == ["best_model", "ended"]
    assert events[0]["plan"] == json.loads((folder / "plan.json").read_text()) | {"epochs": 2}
    seen = json.loads((folder / "effects.json").read_text())["settings"]["loggers"]["seen"]
    assert seen == {"jsonl": "1 epoch sent"}  # of the process that wrote it last


@pytest.mark.skipif(BROWSER is None, reason="needs Chromium")
def test_a_browser_shows_it_without_an_error_or_a_request(folder: Path, tmp_path: Path) -> None:
    assert BROWSER is not None
    (tmp_path / "broken.html").write_text('<script>missing()</script><img src="http://example.invalid/x.png">')
    said, asked = opened(BROWSER, tmp_path / "broken.html", tmp_path)
    assert "missing is not defined" in said and asked == {"http://example.invalid/x.png"}  # it would be seen
    said, asked = opened(BROWSER, folder / "report.html", tmp_path)
    assert (said, asked) == ("", set())


def opened(browser: str, page: Path, folder: Path) -> tuple[str, set[str]]:
    """Open a page in a browser without a screen; return what its console says, and what it asks the network for."""
    log = folder / f"{page.stem}.net.json"
    done = subprocess.run(
        [
            browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run",
            "--disable-background-networking", f"--user-data-dir={folder / 'profile'}", "--enable-logging=stderr",
            f"--log-net-log={log}", "--dump-dom", page.as_uri(),
        ],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    said = "\n".join(line for line in done.stderr.splitlines() if ":CONSOLE" in line)
    asked = set(re.findall(r'"url":"(\w+://[^"]*)"', log.read_text(encoding="utf-8", errors="replace")))
    assert done.stdout.startswith(("<!DOCTYPE html>", "<html>"))
    return said, {url for url in asked if not any(host in url for host in OWN) and not url.startswith("file:")}
