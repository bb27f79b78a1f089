"""``python -m eyas.rehearsal PART FOLDER``: one part of ``eyas rehearse``, in an interpreter of its own."""

import os
import sys
import threading
import time
from pathlib import Path

from eyas.rehearsal.observe import watch_for_hang
from eyas.rehearsal.parts import Task, run_part


def follow_parent(parent: int) -> None:
    """End when the process that conducts is gone: nobody would look at what comes of it."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


if __name__ == "__main__":
    threading.Thread(target=follow_parent, args=(os.getppid(),), daemon=True).start()
    part, folder = sys.argv[1], Path(sys.argv[2])
    watch_for_hang(folder / f"hang-{part}.txt", Task.read(folder).deadline)
    run_part(part, folder)
