"""A diagnosis as one HTML page: no script, no other file, pictures inside."""

from __future__ import annotations

import base64
from html import escape
from pathlib import Path

from eyas.doctor.examine import Diagnosis
from eyas.doctor.finding import Finding, Place
from eyas.doctor.render.pictures import picture
from eyas.doctor.render.table import named, summary
from eyas.files import replacing
from eyas.tables import html_table

MAX_PICTURES = 12  # of a finding
MAX_BYTES = 2_500_000  # of all pictures as text: pages that are sent by mail or opened on a phone are no larger
_LISTED = 50  # files of a finding that are named without a picture

_STYLE = """
:root { color-scheme: light dark; --ink: #20262e; --paper: #fff; --faint: #66707a; --line: #d8dde2; --card: #f6f8fa; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e8ec; --paper: #14181d; --faint: #98a2ac; --line: #333b44; --card: #1c2229; }
}
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 1080px;
  margin: 2em auto; padding: 0 1em; overflow-wrap: anywhere; }
h1 { font-size: 1.5em; margin-bottom: 0; } h2 { font-size: 1.1em; margin: 0; }
table { border-collapse: collapse; margin: 1em 0; } td, th { padding: .2em .8em; border-bottom: 1px solid var(--line); }
td { text-align: right; font-variant-numeric: tabular-nums; } td:first-child, th { text-align: left; }
section { background: var(--card); border-left: 5px solid var(--mark); border-radius: 4px; padding: .8em 1.2em;
  margin: 1em 0; }
.error { --mark: #d1343b; } .warning { --mark: #d98a00; } .note { --mark: #3b82c4; }
.tag { color: var(--mark); font-weight: 600; margin-right: .5em; }
.faint { color: var(--faint); } p { margin: .4em 0; }
.pictures { display: flex; flex-wrap: wrap; gap: 12px; margin: .8em 0; }
figure { margin: 0; max-width: 100%; } figure img { max-width: 100%; display: block; border-radius: 3px; }
figcaption { font-size: 12px; color: var(--faint); max-width: 400px; }
details { font-size: 13px; } summary { cursor: pointer; } li { color: var(--faint); }
"""


def write_page(diagnosis: Diagnosis, path: str | Path) -> None:
    """Write a diagnosis as one HTML page of less than 3 MB.

    Raises:
        OSError: the file cannot be written.
    """
    text = page(diagnosis)
    with replacing(Path(path)) as file:
        file.write(text.encode("utf-8", errors="backslashreplace"))


def page(diagnosis: Diagnosis) -> str:
    """The page as text."""
    pictures = _pictures(diagnosis)
    rows = [
        (name, report.images, report.background, report.boxes)
        for name, report in ((name, split.index.report) for name, split in diagnosis.case.splits.items())
    ]
    sections = [_section(found, pictures[number]) for number, found in enumerate(diagnosis.findings)]
    return "\n".join([
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(diagnosis.data)}: diagnosis</title><style>{_STYLE}</style></head><body>",
        f"<h1>{escape(Path(diagnosis.data).name)}</h1>",
        f'<p class="faint">{escape(diagnosis.data)}, at imgsz={diagnosis.case.imgsz}</p>',
        html_table(("split", "images", "without boxes", "boxes"), rows),
        f"<p><b>{escape(summary(diagnosis))}.</b></p>",
        *sections,
        "</body></html>\n",
    ])  # fmt: skip


def _pictures(diagnosis: Diagnosis) -> list[list[tuple[Place, str]]]:
    """Place and picture as base64, for each finding; each gets its first picture before any gets another."""
    found: list[list[tuple[Place, str]]] = [[] for _ in diagnosis.findings]
    room = MAX_BYTES
    for number in range(MAX_PICTURES):
        for shown, finding in zip(found, diagnosis.findings, strict=True):
            if number >= len(finding.places):
                continue
            data = picture(diagnosis.case, finding.places[number])
            if data is None:
                continue
            text = base64.b64encode(data).decode()
            if len(text) > room:
                return found
            room -= len(text)
            shown.append((finding.places[number], text))
    return found


def _section(found: Finding, pictures: list[tuple[Place, str]]) -> str:
    figures = "".join(
        f'<figure><img alt="" src="data:image/jpeg;base64,{data}"><figcaption>{_caption(place)}</figcaption></figure>'
        for place, data in pictures
    )
    return "".join([
        f'<section class="{found.severity}"><h2><span class="tag">{found.severity}</span>{escape(found.kind)}',
        f'<span class="faint"> &middot; {escape(found.check)}</span></h2>',
        f"<p>{escape(found.sentence)}.</p><p>&rarr; {escape(found.action)}</p>",
        f'<div class="pictures">{figures}</div>' if figures else "",
        _list(found),
        "</section>",
    ])  # fmt: skip


def _caption(place: Place) -> str:
    files = [Path(each.file).name for each in (place, place.beside) if each is not None]
    what = f"{escape(place.what)}<br>" if place.what else ""
    return f"{what}{escape(place.split)}: {escape(', '.join(files))}"


def _list(found: Finding) -> str:
    if not found.places:
        return ""
    rows = "".join(f"<li>{escape(named(place))}</li>" for place in found.places[:_LISTED])
    rest = found.count - min(len(found.places), _LISTED)
    more = f'<p class="faint">... and {rest:,} more; json= lists up to 1,000.</p>' if rest else ""
    return f"<details><summary>{found.count:,} in all</summary><ul>{rows}</ul>{more}</details>"
