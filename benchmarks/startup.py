"""Begin a training as any program would, and print the time when its first batch was trained.

``python startup.py '{"OPTION": "TEXT", ...}'``
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any


def main(options: dict[str, str]) -> None:
    """Train one batch."""
    from eyas import Callback
    from eyas.config.resolve import parse_cli
    from eyas.families import family_of
    from eyas.models import model_table

    class FirstBatch(Callback):
        def on_train_batch_end(self, trainer: Any) -> None:
            float(trainer.loss)  # waits for the device
            print(f"\nfirst batch at {time.time()}", flush=True)
            raise SystemExit  # all that began is ended as after Ctrl-C

    family_of(model_table(options["model"])).trainer(overrides=parse_cli(options), _callbacks=[FirstBatch()]).train()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
