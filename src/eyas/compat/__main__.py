"""``python -m eyas.compat script.py [arguments]``: run a script written for the incumbent library, unmodified."""

from __future__ import annotations

import os
import runpy
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from eyas.compat.start import begin
from eyas.compat.ultralytics import TABLE, answered

USAGE = 2
HELP = f"""\
Usage: python -m eyas.compat SCRIPT [ARGUMENT ...]

Runs a Python script as `python SCRIPT ARGUMENT ...` would, with imports of `ultralytics` answered by Eyas. The script
and the folder it runs in stay as they are. From within a script, `import eyas.compat.activate` as the first line does
the same.

What can be imported:
{chr(10).join(f"  {module}: {', '.join(names)}" for module in sorted(TABLE) if (names := answered(module)))}
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a script; returns an exit code only when there is none to run."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(HELP, end="")
        return USAGE if not arguments else 0
    script = Path(arguments[0])
    if not script.is_file():
        print(f"eyas.compat: there is no script {script} in {Path.cwd()}", file=sys.stderr)
        return USAGE
    sys.excepthook = show_from(str(script))
    run_script(script, arguments[1:])
    return 0


def run_script(script: str | Path, arguments: Sequence[str] = ()) -> dict[str, Any]:
    """Run a script as ``__main__`` and return its globals; whatever it raises comes through."""
    begin(Path(script))
    argv, path = sys.argv[:], sys.path[:]
    sys.argv[:] = [str(script), *arguments]
    sys.path[:0] = [os.fspath(Path(script).resolve().parent)]  # where Python looks first when it runs a script
    try:
        return runpy.run_path(str(script), run_name="__main__")
    finally:
        sys.argv[:], sys.path[:] = argv, path


def show_from(script: str) -> Any:
    """Return an exception hook that shows what happened from the script's own first line on, as Python would."""

    def show(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        start = trace
        while start is not None and start.tb_frame.f_code.co_filename != script:
            start = start.tb_next
        traceback.print_exception(kind, error, start)

    return show


if __name__ == "__main__":
    sys.exit(main())
