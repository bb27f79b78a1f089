"""``python -m eyas.rehearsal PART FOLDER``: one part of ``eyas rehearse``, in an interpreter of its own."""

import os
import sys
from functools import partial
from pathlib import Path

from eyas import parent
from eyas.rehearsal.observe import watch_for_hang
from eyas.rehearsal.parts import Task, run_part

if __name__ == "__main__":
    parent.follow(os.getppid(), partial(os._exit, 1))  # nobody would look at what comes of it
    part, folder = sys.argv[1], Path(sys.argv[2])
    watch_for_hang(folder / f"hang-{part}.txt", Task.read(folder).deadline)
    run_part(part, folder)
