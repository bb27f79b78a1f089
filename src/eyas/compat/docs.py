"""Writes docs/compat.md from the table of names: `python -m eyas.compat.docs [--check] [PATH]`."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from eyas.compat.ultralytics import GONE, TABLE, Absent, answered

DEFAULT_PATH = Path("docs/compat.md")

_INTRO = """\
# Scripts of another library

<!-- Made by `python -m eyas.compat.docs` from the table of names; do not edit. -->

`python -m eyas.compat script.py` runs a script that was written for the import paths of `ultralytics`, unmodified; in a
file of your own, `import eyas.compat.activate` as its first line does the same. The names below are answered by Eyas'
own classes and functions, with the arguments and results that such scripts expect. A name that is not listed is an
`ImportError` that tells the nearest one; a name that Eyas has nothing for says what to use instead.

- `ultralytics.__version__` begins with the release whose names are answered, so that a script's comparisons hold, and
  ends in `+eyas.` and Eyas' own version, so that a report tells who did the work.
- `settings` can be set to what is so anyway (`settings.update(wandb=False)`), and to nothing else: Eyas keeps no
  settings, and what would have no effect is an error.
- `check_requirements` never installs anything, and `strip_optimizer`, `attempt_load_weights` and the like never run
  what is in a file.
- `build_yolo_dataset` and `build_dataloader` give the data sets and loaders of stock training. `YOLODataset` gives
  single images, for scripts that subclass it or put steps of their own between those of `ultralytics.data.augment`;
  each step is then done by itself, not all in one warp.
- `TaskAlignedAssigner`, `VarifocalLoss` and the like are Eyas' own: background has class 0 and no box, and no gradient
  flows through the weights of the varifocal loss.
"""


def render() -> str:
    """The whole page as Markdown."""
    rows = [f"| {_listed(modules)} | {_listed(names)} |" for names, modules in _alike().items() if names]
    parts = [_INTRO, "\n".join(["## What is answered\n", "| module | names |", "|---|---|", *rows])]
    refused = [f"| {_listed(names)} | {reason.instead} |" for reason, names in _refused().items()]
    parts.append("\n".join(["## What is refused\n", "| names | why, or what to use |", "|---|---|", *refused]))
    return "\n\n".join(part.rstrip("\n") for part in parts) + "\n"


def _alike() -> Mapping[tuple[str, ...], list[str]]:
    """Return the modules that answer for the same names, by those names."""
    found: dict[tuple[str, ...], list[str]] = {}
    for module in sorted(TABLE):
        found.setdefault(tuple(answered(module)), []).append(module)
    return found


def _refused() -> Mapping[Absent, list[str]]:
    """Return the names and whole modules that nothing stands for, by what to use."""
    found: dict[Absent, list[str]] = {}
    entries = [(name, entry) for names in TABLE.values() for name, entry in names.items()]
    for name, entry in [*sorted(entries, key=lambda pair: pair[0]), *sorted(GONE.items(), key=lambda pair: pair[0])]:
        if isinstance(entry, Absent) and name not in found.setdefault(entry, []):
            found[entry].append(name)
    return found


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def main(argv: Sequence[str]) -> int:
    """Write the page, or with --check return 1 when the file differs from what would be written."""
    paths = [Path(argument) for argument in argv if argument != "--check"]
    path, page = paths[0] if paths else DEFAULT_PATH, render()
    if "--check" not in argv:
        path.write_text(page, encoding="utf-8")
        return 0
    current = path.read_text(encoding="utf-8") if path.exists() else ""
    if current != page:
        print(f"{path} is not current: run python -m eyas.compat.docs", file=sys.stderr)
    return int(current != page)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
