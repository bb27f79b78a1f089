"""Writes docs/options.md from the option fields: `python -m eyas.config.docs [--check] [PATH]`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from eyas.config.errors import UNSUPPORTED
from eyas.config.options import GROUPS, OptionInfo, describe, option_names

DEFAULT_PATH = Path("docs/options.md")

_INTRO = """\
# Options

<!-- Made by `python -m eyas.config.docs` from the option fields; do not edit. -->

Options are given as keyword arguments (`YOLO("yolo26n").train(data="digits", epochs=12)`), on the command line
(`eyas train model=yolo26n data=digits epochs=12`) or in a YAML file (`cfg=my.yaml`). Later sources win:
default < recipe of the model < file < call < command line. `eyas explain NAME` prints the entry of one option.

**auto** means that the value is chosen from recipe, model and data; what was chosen is printed in the plan of the run
and saved in its `plan.json`. A value that you give is never replaced.

An unknown option is an error that names the nearest real one. So is a known option that would have no effect, such as
`iou` without `nms=True`.
"""

_UNSUPPORTED_INTRO = """\
## Known from other trainers, and refused

These would have no effect here, so they are errors rather than silently accepted.

| option | why, or what to use |
|---|---|
"""

_TABLE_HEAD = ("| option | type | default | used by | meaning |", "|---|---|---|---|---|")


def render() -> str:
    """The whole page as Markdown."""
    infos = [describe(name) for name in option_names()]
    parts = [_INTRO]
    for group, title in GROUPS.items():
        rows = [_row(info) for info in infos if info.group == group]
        parts.append("\n".join([f"## {title}\n", *_TABLE_HEAD, *rows]))
    parts.append(_UNSUPPORTED_INTRO + "\n".join(f"| `{name}` | {why} |" for name, why in sorted(UNSUPPORTED.items())))
    return "\n\n".join(part.rstrip("\n") for part in parts) + "\n"


def main(argv: Sequence[str]) -> int:
    """Write the page, or with --check return 1 when the file differs from what would be written."""
    check = "--check" in argv
    paths = [Path(argument) for argument in argv if argument != "--check"]
    path = paths[0] if paths else DEFAULT_PATH
    page = render()
    if check:
        current = path.read_text(encoding="utf-8") if path.exists() else ""
        if current != page:
            print(f"{path} is not current: run python -m eyas.config.docs", file=sys.stderr)
        return int(current != page)
    path.write_text(page, encoding="utf-8")
    return 0


def _row(info: OptionInfo) -> str:
    kind = f"{info.type}, {info.range}" if info.range else info.type
    cells = (f"`{info.name}`", kind, info.default, ", ".join(info.commands), info.help)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
