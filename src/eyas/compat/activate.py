"""``import eyas.compat.activate`` as a script's first line: its imports of ``ultralytics`` are then answered by Eyas.

This import is made for its effect: it installs the importer, sends Eyas' log to the console, as the script expects, and
warns of what the script will ask for in vain. A script that runs under ``python -m eyas.compat`` has all that already.
"""

import sys
from pathlib import Path

from eyas.compat.hook import EyasCompatFinder
from eyas.compat.start import begin

if not any(isinstance(finder, EyasCompatFinder) for finder in sys.meta_path):
    main = getattr(sys.modules["__main__"], "__file__", None)
    begin(Path(main) if main is not None and Path(main).is_file() else None)
