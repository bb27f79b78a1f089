"""The notebooks of ``examples/``: ``python tests/helpers/notebooks.py`` runs all, or those that it is given.

What they show is stored in them, and belongs to the code beside it: a hash of the cells is stored too, and a test
compares it. Paths of the machine on which they were run are replaced by what a reader's would be.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))
MOST = 300_000  # bytes of a notebook


def read(path: Path) -> dict[str, Any]:
    """Return a notebook."""
    notebook: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return notebook


def codes(notebook: dict[str, Any]) -> list[str]:
    """Return the code of its cells, in order."""
    return ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]


def digest(notebook: dict[str, Any]) -> str:
    """Return a hash of all that is run."""
    return hashlib.sha256("\0".join(codes(notebook)).encode()).hexdigest()


def without_paths(text: str, places: dict[str, str]) -> str:
    """Return a text in which a reader's places stand for those of this machine."""
    for place, name in places.items():
        text = text.replace(place, name)
    return text


def execute(path: Path, cache: Path) -> None:
    """Run a notebook in a folder of its own, and store it with what came out."""
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(path, 4)
    os.environ["EYAS_CACHE"] = str(cache)
    os.environ["PYTHONPATH"] = str(ROOT / "src")
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with tempfile.TemporaryDirectory() as folder:
        NotebookClient(notebook, timeout=3600, resources={"metadata": {"path": folder}}).execute()
        for cell in notebook.cells:
            cell.metadata = {}
        notebook.metadata = {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
            "eyas": {"code": digest(notebook)},
        }
        places = {f"{folder}/": "", folder: ".", str(cache): "~/.cache/eyas", str(ROOT): "eyas", str(Path.home()): "~"}
        text = nbformat.writes(notebook)
    path.write_text(without_paths(text, places) + "\n", encoding="utf-8")
    print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as kept:
        for one in map(Path, sys.argv[1:] or NOTEBOOKS):
            execute(one, Path(os.environ.get("EYAS_CACHE", kept)))
