"""Which methods of a user's classes are taken for hooks that nothing calls, and which are left alone."""

from __future__ import annotations

import importlib
import re
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest

from eyas import DetectionTrainer
from eyas.callbacks import ADJUSTERS, EVENTS, Callback
from eyas.losses import DenseCriterion, SetCriterion
from eyas.models import DetectionModel
from eyas.prove.hook_names import HOMES, INSTEAD, LOSS_METHODS, TRAINER_METHODS, hook_instead
from eyas.prove.uncalled import UncalledError, names_in_code, parts, refuse_uncalled

HEAD = """
import functools
import torch
from eyas import Callback, DetectionTrainer
from eyas.compat.losses import E2ELoss, v8DetectionLoss
from eyas.evaluate import DetectionValidator
from eyas.models import DetectionModel

def tag(name):
    def f(self, *args): return name
    return f
"""

REFUSED = {  # what a class has -> what to use instead
    "class T(DetectionTrainer):\n def get_criterion(self): ...": "init_criterion",
    "class T(DetectionTrainer):\n def _setup_scheduler(self): super()._setup_scheduler()": "schedule=...",
    "class T(DetectionTrainer):\n def build_dataloader(self): ...": "get_dataloader",
    "class T(DetectionTrainer):\n training_step = tag('training_step')": "train_batch",
    "class T(DetectionTrainer):\n set_class_weights = staticmethod(lambda: None)": "class_weights=",
    "class T(DetectionTrainer):\n def configure_optimizers(self): ...": "build_optimizer",
    "class T(DetectionTrainer):\n def on_train_epoch_end(self): ...": "a hook of a Callback",
    "class T(DetectionTrainer):\n def init_criterion(self): ...": "a method of the model",
    "class T(DetectionTrainer):\n def optimiser_step(self): ...": r"optimizer_step\(\)\?",
    "class T(DetectionTrainer):\n def preproces_batch(self, batch): return batch": r"preprocess_batch\(\)\?",
    "class Mixin:\n def build_scheduler(self): ...\nclass T(Mixin, DetectionTrainer): ...": "schedule=...",
    "class T(Callback):\n def on_epoch_end(self, trainer): ...": r"nearest is on_fit_epoch_end\(\)",
    "class T(Callback):\n def on_train_epoch_ends(self, trainer): ...": r"on_train_epoch_end\(\)\?",
    "class T(Callback):\n def adjust_lr(self, trainer, groups): ...": "adjust_rates",
    "class T(Callback):\n def optimizer_step(self, trainer): ...": "a method of a trainer",
    "class T(DetectionModel):\n def compute_loss(self, batch): ...": "init_criterion",
    "class T(DetectionModel):\n def _predict_once(self, x): return super()._predict_once(x)": r"predict\(self, x\)",
    "class T(DetectionModel):\n def build_optimizer(self): ...": "a method of a trainer",
    "class T(v8DetectionLoss):\n def compute_loss(self, preds): ...": "init_criterion",
    "class T(E2ELoss):\n def box_loss(self, pred, target): ...": "a method of the criterion",
    "class T(DetectionValidator):\n def on_val_end(self): ...": "a hook of a Callback",
}
FREE = (
    "class T(DetectionTrainer):\n def draw_my_boxes(self): ...\n def ema_of(self): ...\n def _log(self): ...",
    "class T(DetectionTrainer):\n def build_scheduler(self): ...\n def setup(self): self.build_scheduler()",
    "class T(DetectionTrainer):\n def build_scheduler(self): ...\ndef use(trainer): trainer.build_scheduler()",
    "class T(DetectionTrainer):\n def build_scheduler(self): ...\nuse = lambda t: getattr(t, 'build_scheduler')()",
    "class T(DetectionTrainer):\n def on_x(self): ...\n def setup(self, e='x'): getattr(self, f'on_{e}')()",
    "class T(DetectionTrainer):\n def validate(self): return super().validate()\n def final_eval(self): ...",
    "class T(DetectionTrainer):\n wrapped = functools.wraps(DetectionTrainer.validate)(lambda self: None)",
    "class T(DetectionTrainer):\n on_top = 3\n criterion = property(lambda self: None)",
    "class T(Callback):\n def on_val_end(self, trainer): self.tell()\n def tell(self): ...",
    "class T(DetectionModel):\n def init_weights(self): ...\n def forward_features(self, x): ...",
    "class T(torch.nn.Module):\n def get_loss(self, x): ...\n def training_step(self): ...",
    "class T(v8DetectionLoss):\n def my_iou(self): ...\n def decode_distances(self, outputs): ...",
)


def class_of(source: str, folder: Path) -> type:
    """Return the class T of a script."""
    script = folder / "script.py"
    script.write_text(HEAD + source + "\n")
    return runpy.run_path(str(script))["T"]


@pytest.mark.parametrize("source", REFUSED)
def test_what_looks_like_a_hook_and_is_never_called_is_refused(source: str, tmp_path: Path) -> None:
    with pytest.raises(UncalledError, match=rf"\(script.py:\d+\) is never called: .*{REFUSED[source]}"):
        refuse_uncalled([class_of(source, tmp_path)])


@pytest.mark.parametrize("source", FREE)
def test_helpers_and_what_the_users_code_calls_are_free(source: str, tmp_path: Path) -> None:
    refuse_uncalled([class_of(source, tmp_path)])


def test_a_module_beside_the_script_or_its_package_may_call_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    caller = "def use(trainer):\n    trainer.get_criterion()\n"
    (tmp_path / "beside_the_script.py").write_text(caller)
    source = next(iter(REFUSED))
    refuse_uncalled([class_of("import beside_the_script\n" + source, tmp_path)])
    (tmp_path / "packaged" / "inner").mkdir(parents=True)
    (tmp_path / "packaged" / "inner" / "trainers.py").write_text(HEAD + source)
    packaged = importlib.import_module("packaged.inner.trainers").T
    refuse_uncalled([packaged])
    monkeypatch.delitem(sys.modules, "beside_the_script")
    with pytest.raises(UncalledError, match="get_criterion"):
        refuse_uncalled([packaged])


def test_code_without_a_file_is_read_as_it_was_compiled() -> None:
    names: dict[str, Any] = {"__name__": "__main__"}
    source = "class T(DetectionTrainer):\n def {}(self): ...\n def setup(self): [self.build_scheduler() for _ in 'a']"
    exec(HEAD + source.format("build_scheduler"), names)
    refuse_uncalled([names["T"]])
    assert "build_scheduler" in names_in_code(names["T"].setup.__code__)
    exec(HEAD + source.format("get_criterion"), names)
    with pytest.raises(UncalledError, match="get_criterion"):
        refuse_uncalled([names["T"]])


def test_the_loss_of_a_model_is_looked_at_with_its_branches(tiny_model: Path) -> None:
    model = DetectionModel(tiny_model, nc=3, verbose=False)
    model.criterion = model.init_criterion()
    found = parts(model, None)
    assert DetectionModel in found and found.count(DenseCriterion) == 2
    refuse_uncalled(found)


def test_every_hook_that_is_named_exists() -> None:
    assert all(hasattr(DetectionTrainer, name) for name in TRAINER_METHODS)
    assert all(hasattr(DenseCriterion, name) or hasattr(SetCriterion, name) for name in LOSS_METHODS)
    assert all(hasattr(Callback, name) for name in (*EVENTS, *ADJUSTERS))
    homes = {name for cls in (DetectionTrainer, DetectionModel, Callback) for name in dir(cls)}
    assert homes >= HOMES.keys() - set(LOSS_METHODS)
    named = {word for use in INSTEAD.values() for word in re.findall(r"(\w+)\(self", use)}
    assert named and all(hook_instead(name) for name in INSTEAD)
