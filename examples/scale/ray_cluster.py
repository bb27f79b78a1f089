"""One training over all GPUs of a Ray cluster, or a search that gives each trial one of them.

    python examples/scale/ray_cluster.py train
    python examples/scale/ray_cluster.py tune

Run on any machine of the cluster, or sent there by `ray job submit`. Paths are those of the machines that train: data
and storage lie on a disk that all of them share.
"""

from __future__ import annotations

import sys

from eyas.tune.ray import torch_trainer, tuner

STORAGE = "/shared/ray"
OPTIONS = {"model": "yolo26n", "data": "/shared/my.yaml", "epochs": 100, "device": "cuda"}
SPACE = {"lr0": {"low": 1e-3, "high": 2e-2, "log": True}, "mixup": [0.0, 0.1, 0.2]}


def main(what: str) -> None:
    """Train once over eight GPUs, or try 64 settings, each on a GPU of its own."""
    if what == "train":
        trainer = torch_trainer(
            OPTIONS | {"batch": 256, "save_dir": "/shared/runs/first"}, workers=8, use_gpu=True, storage=STORAGE
        )
        print(trainer.fit().metrics)
    else:
        from ray.tune.schedulers import ASHAScheduler

        trials = tuner(
            OPTIONS | {"batch": 16},
            SPACE,
            trials=64,
            resources={"cpu": 8, "gpu": 1},
            scheduler=ASHAScheduler(time_attr="epoch", grace_period=20, max_t=100),
            storage=STORAGE,
        )
        print(trials.fit().get_best_result().config)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "train")
