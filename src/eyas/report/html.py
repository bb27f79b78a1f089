"""The frame of a page that people open in a browser: one file, no outside request, light and dark, screen and print.

Every text that comes from a run is escaped, and the browser is told to load nothing and to run no script but ours.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from html import escape

from eyas.report.charts import LEFT, RIGHT, WIDTH
from eyas.tables import Rows, format_cell

STYLE = """
:root{color-scheme:light dark;--ink:#1d242c;--soft:#5b6672;--line:#d9dee4;--paper:#fff;--card:#f6f8fa;--accent:#1f5fbf;
--good:#16803c;--bad:#c2410c}
@media(prefers-color-scheme:dark){:root{--ink:#e3e8ee;--soft:#98a3b0;--line:#333c47;--paper:#12171d;--card:#1a2129;
--accent:#7fb0ff;--good:#4ade80;--bad:#fb923c}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:1280px;padding:1rem;background:var(--paper);color:var(--ink);
font:15px/1.5 system-ui,sans-serif;overflow-wrap:anywhere}
h1{font-size:1.5rem;margin:.2rem 0}h2{font-size:1.15rem;margin:2rem 0 .6rem;border-bottom:1px solid var(--line)}
p{margin:.4rem 0}.soft,figcaption output{color:var(--soft)}
.state{display:inline-block;padding:0 .6rem;border-radius:1rem;border:1px solid currentColor;font-size:.85rem}
.training{color:var(--accent)}.finished{color:var(--good)}.stopped{color:var(--bad)}
.tiles{display:grid;grid-template-columns:repeat(auto-fill,minmax(9.5rem,1fr));gap:.6rem;margin:1rem 0}
.tiles div{background:var(--card);border:1px solid var(--line);border-radius:.5rem;padding:.5rem .7rem}
.tiles b{display:block;font-size:1.25rem;font-weight:600}.tiles span{color:var(--soft);font-size:.85rem}
.charts,.worst{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(22rem,100%),1fr));gap:1rem}
.worst{grid-template-columns:repeat(auto-fill,minmax(min(30rem,100%),1fr))}
figure{margin:0;background:var(--card);border:1px solid var(--line);border-radius:.5rem;padding:.6rem;
break-inside:avoid}
figcaption{font-weight:600;display:flex;justify-content:space-between;gap:1rem;flex-wrap:wrap}
figcaption output{font-weight:400;font-size:.85rem;min-height:1.3em}
svg{display:block;width:100%;height:auto}svg text{fill:var(--soft);font-size:11px}
.grid{stroke:var(--line)}.tick,.axis{stroke:var(--soft);fill:none}.curve{fill:none;stroke-width:2;stroke-linejoin:round}
.best{stroke:var(--good);stroke-dasharray:4 3}text.best{stroke:none;fill:var(--good)}.pointer{stroke:var(--soft)}
.legend{display:flex;flex-wrap:wrap;gap:.2rem 1rem;font-size:.85rem;color:var(--soft)}
.legend i{display:inline-block;width:1.2em;height:3px;vertical-align:middle;margin-right:.4em}
.scroll{overflow:auto;max-height:34rem;border:1px solid var(--line);border-radius:.5rem}
table{border-collapse:collapse;width:100%;font-size:.9rem}
th,td{padding:.25rem .6rem;text-align:left;border-bottom:1px solid var(--line);vertical-align:top}
thead th{position:sticky;top:0;background:var(--card)}td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}
table.matrix{width:auto;font-size:.8rem}.matrix td{text-align:center;min-width:2.4rem}
.matrix thead th{writing-mode:vertical-rl;transform:rotate(180deg);padding:.6rem .25rem;position:static}
.pictures rect{stroke-width:2}
.truth{stroke:#00d26a;fill:none}.right{stroke:#3b9dff;fill:none}.wrong{stroke:#ff5a36;fill:none}
.pictures text{font-weight:600;fill:#fff;stroke:#000;stroke-width:3;paint-order:stroke;stroke-linejoin:round}
.key i{display:inline-block;width:.9em;height:.9em;border:3px solid;vertical-align:-.1em;margin:0 .3em 0 .8em}
details{margin:.6rem 0}summary{cursor:pointer;color:var(--accent)}
@media print{:root{--ink:#000;--soft:#444;--line:#bbb;--paper:#fff;--card:#fff}body{max-width:none;font-size:11px}
.scroll{max-height:none;overflow:visible}thead th{position:static}}
"""

SCRIPT = """
for (const svg of document.querySelectorAll('svg.chart')) {
  const {x: [low, high], lines} = JSON.parse(svg.dataset.numbers);
  const said = svg.parentElement.querySelector('output'), pointer = svg.querySelector('.pointer');
  const [left, right, width] = [LEFT, RIGHT, WIDTH];
  const tell = event => {
    const box = svg.getBoundingClientRect();
    const share = ((event.clientX - box.left) / box.width * width - left) / (width - left - right);
    const at = low + Math.min(Math.max(share, 0), 1) * (high - low);
    const near = lines.flatMap(line => line[1]).reduce((a, b) => Math.abs(b - at) < Math.abs(a - at) ? b : a);
    const x = left + (near - low) / (high - low) * (width - left - right);
    pointer.setAttribute('x1', x); pointer.setAttribute('x2', x);
    const values = lines.filter(line => line[1].includes(near))
      .map(line => (lines.length > 1 ? line[0] + ' ' : '') + line[2][line[1].indexOf(near)]);
    said.textContent = 'epoch ' + near + ': ' + values.join(', ');
  };
  svg.addEventListener('pointermove', tell);
  svg.addEventListener('pointerdown', tell);
  svg.addEventListener('pointerleave', () => {
    said.textContent = ''; pointer.setAttribute('x1', -9); pointer.setAttribute('x2', -9);
  });
}
const again = Number(document.body.dataset.again);
if (again) setTimeout(() => location.reload(), 1000 * again);
"""


def document(title: str, body: str, *, again: int = 0) -> str:
    """Return a whole page.

    Args:
        title: plain text.
        body: HTML, whose texts are escaped.
        again: seconds after which it opens itself anew; 0 for never.
    """
    script = SCRIPT.replace("[LEFT, RIGHT, WIDTH]", f"[{LEFT}, {RIGHT}, {WIDTH}]")
    known = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    rules = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{known}'"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{rules}">'
        '<meta name="viewport" content="width=device-width,initial-scale=1"><link rel="icon" href="data:,">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>"
        f'<body data-again="{again}">{body}<script>{script}</script></body></html>\n'
    )


def section(title: str, *parts: str) -> str:
    """Return a part of a page with its heading; nothing where there is nothing in it."""
    content = "".join(parts)
    return f"<section><h2>{escape(title)}</h2>{content}</section>" if content else ""


def table(header: Sequence[str], rows: Rows) -> str:
    """Return a table in a frame of its own that scrolls; numbers stand to the right, every text is escaped."""
    if not rows:
        return ""
    right = [all(isinstance(row[i], int | float) or row[i] is None for row in rows) for i in range(len(header))]

    def line(tag: str, cells: Sequence[object]) -> str:
        marks = (' class="n"' if is_number else "" for is_number in right)
        cells_ = (f"<{tag}{m}>{escape(format_cell(cell))}</{tag}>" for m, cell in zip(marks, cells, strict=True))
        return f"<tr>{''.join(cells_)}</tr>"

    body = "".join(line("td", row) for row in rows)
    return f'<div class="scroll"><table><thead>{line("th", header)}</thead><tbody>{body}</tbody></table></div>'


def folded(title: str, content: str) -> str:
    """Return a part that opens when it is asked for; nothing where there is nothing in it."""
    return f"<details><summary>{escape(title)}</summary>{content}</details>" if content else ""


def tiles(values: Sequence[tuple[str, str]]) -> str:
    """Return names and values to be seen at a glance."""
    made = (f"<div><b>{escape(value)}</b><span>{escape(name)}</span></div>" for name, value in values)
    return f'<div class="tiles">{"".join(made)}</div>'
