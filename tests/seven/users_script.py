"""A user's script: everything it changes is defined here, in ``__main__``, and trains in two processes.

Not a test, and never imported. Run as ``python users_script.py FOLDER WEIGHTS DATA IMAGE``.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections import Counter
from pathlib import Path

from eyas import YOLO, DetectionTrainer, dist
from eyas.callbacks import Callback
from eyas.losses import EndToEndCriterion
from eyas.models import DetectionModel
from eyas.optim import unwrap_model

FOLDER, WEIGHTS, DATA, IMAGE = (Path(text) for text in sys.argv[1:])
FACTOR = 0.5  # a global of the script that the loss needs

with (FOLDER / "ran.txt").open("a") as file:
    file.write("once\n")


class MyLoss(EndToEndCriterion):
    """The stock loss with a smaller say for boxes."""

    def __call__(self, preds, batch):
        loss, items = super().__call__(preds, batch)
        return loss * loss.new_tensor([FACTOR, 1.0, 1.0]), items


class MyModel(DetectionModel):
    def init_criterion(self):
        self.told = [self.nc, list(self.names.values()), self.args.cls]
        stock = super().init_criterion()
        return MyLoss(stock.one2many, stock.one2one)


class MyTrainer(DetectionTrainer):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.add_callback("on_train_epoch_start", registered_in_init)

    def get_model(self, cfg=None, weights=None, verbose=True):
        model = MyModel(cfg, nc=self.data["nc"], names=self.data["names"], verbose=verbose)
        model.load(weights)
        return model

    def validate(self):
        metrics, fitness = super().validate()
        return metrics | {"my/epoch": float(self.epoch)}, fitness


CALLS = Counter()


def registered_in_init(trainer):
    CALLS[trainer.epoch] += 1


def fingerprint(trainer):
    digest = hashlib.sha256()
    for parameter in unwrap_model(trainer.model).parameters():
        digest.update(parameter.detach().numpy().tobytes())
    return digest.hexdigest()


def witness(folder):
    """Closures over what they note and where it is written."""
    seen = {"batches": 0, "epochs": []}

    def count(trainer):
        seen["batches"] += 1

    def note(trainer):
        averaged = getattr(trainer.model, "trained", ())
        thawed = [name for name, p in unwrap_model(trainer.model).named_parameters() if p.requires_grad]
        seen["epochs"].append({"weights": fingerprint(trainer), "trainable": len(thawed), "averaged": len(averaged)})

    def write(trainer):
        facts = {"in_init": dict(CALLS), "told": unwrap_model(trainer.model).told, "batch": len(trainer.batch["img"])}
        (folder / f"rank{dist.rank()}.json").write_text(json.dumps(seen | facts))

    return count, note, write


class Component(Callback):
    """Holds a function that no other process could import."""

    def __init__(self):
        self.scale = lambda loss: loss * 1.0

    def adjust_loss(self, trainer, loss):
        return self.scale(loss)


model = YOLO(WEIGHTS)
for event, function in zip(("on_train_batch_end", "on_fit_epoch_end", "on_train_end"), witness(FOLDER), strict=True):
    model.add_callback(event, function)
result = model.train(
    trainer=MyTrainer,
    callbacks=[Component()],
    data=str(DATA),
    device="cpu",
    processes=2,
    imgsz=64,
    batch=8,
    epochs=2,
    workers=0,
    plots=False,
    verbose=False,
    project=str(FOLDER),
    metrics=["f1"],
    class_weights={"green": 3.0},
    best_by=["metrics/mAP50(B)", {"metric": "f1", "mode": "max"}],
    freeze="backbone",
    freeze_epochs=1,
    lr_rules={"backbone": 0.1},
    sync_bn=True,
    clip_grad_norm=0.1,
)
report = {
    "best": str(result.best),
    "save_dir": str(result.save_dir),
    "epochs": result.epochs,
    "same_class": result.model_class is MyModel and type(model.model) is MyModel,
    "metrics": result.metrics,
    "files": sorted(path.name for path in result.best.parent.iterdir()),
    "calls": dict(CALLS),  # of the main process, in this one
    "trainer_metrics": model.trainer.metrics,
    "boxes": model.predict(IMAGE, conf=0.01, imgsz=64, device="cpu")[0].boxes.data.tolist(),
}
(FOLDER / "report.json").write_text(json.dumps(report))
