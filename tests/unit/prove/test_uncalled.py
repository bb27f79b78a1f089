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
import abc
import functools
from typing import Protocol
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
    "class T(DetectionTrainer):\n training_step = tag('a name')": "train_batch",
    "class T(DetectionTrainer):\n training_step = tag('training_step')": "train_batch",
    "class T(DetectionTrainer): ...\nT.training_step = tag('training_step')": "train_batch",
    "class T(DetectionTrainer):\n def __init__(self): self.get_loss = tag('get_loss')": "init_criterion",
    "class T(DetectionTrainer):\n set_class_weights = staticmethod(lambda: None)": "class_weights=",
    "class T(DetectionTrainer):\n def configure_optimizers(self): ...": "build_optimizer",
    "class T(DetectionTrainer):\n def on_train_epoch_end(self): ...": "a hook of a Callback",
    "class T(DetectionTrainer):\n def init_criterion(self): ...": "a method of the model",
    "class T(DetectionTrainer):\n def optimiser_step(self): ...": r"optimizer_step\(\)\?",
    "class T(DetectionTrainer):\n def preproces_batch(self, batch): return batch": r"preprocess_batch\(\)\?",
    "class Mixin:\n def build_scheduler(self): ...\nclass T(Mixin, DetectionTrainer): ...": "schedule=...",
    "class T(DetectionTrainer):\n def buildOptimizer(self): ...": r"did you mean build_optimizer\(\)\? If",
    "class T(DetectionTrainer):\n def optimizerstep(self): ...": r"did you mean optimizer_step\(\)\? If",
    "class T(DetectionTrainer):\n def backward(self, loss): loss.backward()": "train_batch",
    "class T(DetectionTrainer):\n def loss(self, p, b): ...\ndef step(x): x.loss.loss(1)": "init_criterion",
    "class T(DetectionTrainer):\n def evaluate(self): ...\nuse = lambda t: t.model.evaluate()": "validate",
    "class T(DetectionTrainer):\n def compute_metrics(self): ...": "adjust_metrics",
    "class T(DetectionTrainer):\n def setup_train(self): ...": r"use setup\(self\)",
    "class T(DetectionTrainer):\n def before_train(self): ...": "on_train_start",
    "class T(DetectionTrainer):\n def after_epoch(self): ...": "on_train_epoch_end",
    "class T(DetectionTrainer):\n def end_epoch(self): ...": "on_train_epoch_end",
    "class T(DetectionTrainer):\n def collate_fn(self, b): ...": "get_dataloader",
    "class T(DetectionTrainer):\n def lr_lambda(self, epoch): ...": "schedule=...",
    "class T(DetectionTrainer):\n def scheduler(self): ...\ndef log(t): print(t.scheduler)": "schedule=...",
    "class T(DetectionTrainer):\n def criterion(self): ...\ndef log(t): return t.model.criterion(1)": "init_criterion",
    "class T(DetectionTrainer):\n def get_loss(self): self.get_loss_fn()\n def get_loss_fn(self): self.get_loss()": (
        "init_criterion(.|\n)*init_criterion"
    ),
    "class T(DetectionTrainer):\n def get_loss(self): return self.get_loss()": "init_criterion",
    "class T(DetectionTrainer):\n @torch.no_grad()\n def get_loss(self): ...\n __doc__ = 'get_loss'": "init_criterion",
    "class T(DetectionTrainer):\n def get_loss(self): ...\nsetattr(T, 'get_loss', tag('a'))": "init_criterion",
    "class T(DetectionTrainer):\n @property\n def criterion(self): ...": "init_criterion",
    "class T(DetectionTrainer):\n @functools.cached_property\n def lr_scheduler(self): ...": "schedule=...",
    "class T(DetectionTrainer):\n def f(self): ...\n training_step = functools.partial(tag, 1)": "train_batch",
    "class T(DetectionTrainer):\n def f(self): ...\n training_step = functools.partialmethod(f)": "train_batch",
    "class T(DetectionTrainer):\n def f(self): ...\n criterion = torch.nn.BCELoss()": "init_criterion",
    "class T(DetectionTrainer):\n def __init__(self):\n  self.criterion = torch.nn.BCELoss()": "init_criterion",
    "class T(DetectionTrainer):\n def __init__(self): self.training_step = lambda batch: 0": "train_batch",
    "class T(Callback):\n def on_epoch_end(self, trainer): ...": r"nearest is on_fit_epoch_end\(\)\. .*on_exception",
    "class T(Callback):\n def on_click(self, event): ...": "no event has this name. A Callback has on_pretrain",
    "class T(Callback):\n def on_log(self, trainer): ...": "no event has this name. A Callback has on_pretrain",
    "class T(Callback):\n def adjust_nothing(self): ...": r"no adjuster has this name\. A Callback has adjust_data",
    "class T(Callback):\n def onTrainEpochEnd(self, t): ...": r"did you mean on_train_epoch_end\(\)\? If",
    "class T(Callback):\n def before_run(self, t): ...": "no event",
    "class T(Callback):\n def after_train_epoch(self, t): ...": "no event",
    "class T(Callback):\n def epoch_end(self, t): ...": r"nearest is on_fit_epoch_end\(\)",
    "class T(Callback):\n def validation_batch_start(self, t): ...": r"no event",
    "class M:\n def build_optimizer(self): ...\nclass T(DetectionTrainer, M): ...": (
        r"it stands behind DetectionTrainer\. Write class T\(M, DetectionTrainer\)\."
    ),
    "class M:\n def on_val_end(self, t): ...\nclass B(Callback, M): ...\nclass T(B): ...": r"class B\(M, Callback\)",
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
    "class T(DetectionTrainer):\n on_top = 3\n class Fitness: ...\n criterion = torch.nn.BCELoss",
    "class T(DetectionTrainer):\n def get_loss(self): ...\n table = {'a': get_loss}",
    "class T(DetectionTrainer):\n def _h(self): ...\n get_loss = _h",
    "class T(DetectionTrainer):\n def get_loss(self): self.get_loss_fn()\n def get_loss_fn(self): ...\n a = get_loss",
    "def loss_of(self): ...\nclass T(DetectionTrainer):\n get_loss = loss_of\nloss_of(None)",
    "def reg(f): return f\nclass T(DetectionTrainer):\n @reg\n def get_loss(self): ...",
    "class T(DetectionTrainer):\n steps = ('get_loss',)\n def get_loss(self): ...",
    "class T(DetectionTrainer):\n def get_loss(self): ...\n def setup(self): get_loss = getattr(self, 'get_loss')",
    "class T(DetectionTrainer):\n def get_loss(self): ...\n def setup(self):\n  def get_loss(): self.get_loss()",
    "class T(DetectionTrainer):\n def get_loss(self): ...\nclass Other:\n def get_loss(self): self.t.get_loss()",
    "class T(DetectionTrainer):\n criterion = property(lambda self: None)\ndef log(t): print(t.criterion)",
    "class T(DetectionTrainer):\n def __init__(self): self.criterion = tag('a')\n def setup(self): self.criterion()",
    "class T(DetectionTrainer):\n def __init__(self): self.loss_fn, self.fitness, self.scheduler = 1, None, 'cosine'",
    "class T(DetectionTrainer):\n def augment(self): ...\n def get_lr(self): ...\n def load_weights(self): ...",
    "class T(DetectionTrainer):\n def warmup(self): ...\n def step(self): ...\n def save_best(self): ...",
    "class T(DetectionTrainer):\n def freeze_layers(self): ...\n def val(self): ...\n def load_model(self): ...",
    "class T(Callback):\n def on_exit(self): ...\ndef use(t, register): register(t.on_exit)",
    "class T(Callback):\n def __init__(self, f=tag('f')): self.on_done = f\n def on_val_end(self, t): self.on_done()",
    "class T(DetectionModel):\n def __init__(self): self.__dict__['criterion'] = tag('a')",
    "class M:\n def build_optimizer(self): ...\nclass T(M, DetectionTrainer): ...",
    "class M(Protocol):\n def build_optimizer(self): ...\nclass T(DetectionTrainer, M): ...",
    "class M(abc.ABC):\n @abc.abstractmethod\n def build_optimizer(self): ...\nclass T(DetectionTrainer, M): ...",
    "class M:\n def validate(self): ...\nclass T(DetectionTrainer, M):\n def setup(self): M.validate(self)",
    "class M:\n def validate(self): ...\nclass T(DetectionTrainer, M):\n def validate(self): ...",
    "class T(Callback):\n def on_val_end(self, trainer): self.tell()\n def tell(self): ...",
    "class T(DetectionModel):\n def init_weights(self): ...\n def forward_features(self, x): ...",
    "class T(torch.nn.Module):\n def get_loss(self, x): ...\n def training_step(self): ...",
    "class T(v8DetectionLoss):\n def my_iou(self): ...\n def decode_distances(self, outputs): ...",
)


def object_of(source: str, folder: Path) -> object:
    """Return an object of the class T of a script, as far as the class itself makes it."""
    script = folder / "script.py"
    script.write_text(HEAD + source + "\n")
    return bare(runpy.run_path(str(script))["T"])


def bare(cls: type) -> object:
    """Return an object of a class, with what a constructor of its own without arguments sets."""
    thing = object.__new__(cls)
    if "__init__" in vars(cls):
        cls.__init__(thing)  # type: ignore[misc]
    return thing


@pytest.mark.parametrize("source", REFUSED)
def test_what_looks_like_a_hook_and_is_never_called_is_refused(source: str, tmp_path: Path) -> None:
    with pytest.raises(UncalledError, match=rf"\(script.py:\d+\) is never (called|used): .*{REFUSED[source]}"):
        refuse_uncalled([object_of(source, tmp_path)])


@pytest.mark.parametrize("source", FREE)
def test_helpers_and_what_the_users_code_calls_are_free(source: str, tmp_path: Path) -> None:
    refuse_uncalled([object_of(source, tmp_path)])


def test_a_module_beside_the_script_or_its_package_may_call_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    caller = "def use(trainer):\n    trainer.get_criterion()\n"
    (tmp_path / "beside_the_script.py").write_text(caller)
    source = next(iter(REFUSED))
    refuse_uncalled([object_of("import beside_the_script\n" + source, tmp_path)])
    (tmp_path / "packaged" / "inner").mkdir(parents=True)
    (tmp_path / "packaged" / "inner" / "trainers.py").write_text(HEAD + source)
    packaged = importlib.import_module("packaged.inner.trainers").T
    refuse_uncalled([bare(packaged)])
    monkeypatch.delitem(sys.modules, "beside_the_script")
    with pytest.raises(UncalledError, match="get_criterion"):
        refuse_uncalled([bare(packaged)])


def test_code_without_a_file_is_read_as_it_was_compiled() -> None:
    names: dict[str, Any] = {"__name__": "__main__"}
    source = "class T(DetectionTrainer):\n def {}(self): ...\n def setup(self): [self.build_scheduler() for _ in 'a']"
    exec(HEAD + source.format("build_scheduler"), names)
    refuse_uncalled([bare(names["T"])])
    assert "build_scheduler" in names_in_code(names["T"].setup.__code__)
    exec(HEAD + source.format("get_criterion"), names)
    with pytest.raises(UncalledError, match="get_criterion"):
        refuse_uncalled([bare(names["T"])])


def test_the_loss_of_a_model_is_looked_at_with_its_branches(tiny_model: Path) -> None:
    model = DetectionModel(tiny_model, nc=3, verbose=False)
    model.criterion = model.init_criterion()
    found = parts(model, None)
    assert model in found and sum(type(part) is DenseCriterion for part in found) == 2
    refuse_uncalled(found)


def test_every_hook_that_is_named_exists() -> None:
    assert all(hasattr(DetectionTrainer, name) for name in TRAINER_METHODS)
    assert all(hasattr(DenseCriterion, name) or hasattr(SetCriterion, name) for name in LOSS_METHODS)
    assert all(hasattr(Callback, name) for name in (*EVENTS, *ADJUSTERS))
    homes = {name for cls in (DetectionTrainer, DetectionModel, Callback) for name in dir(cls)}
    assert homes >= HOMES.keys() - set(LOSS_METHODS)
    named = {word for use in INSTEAD.values() for word in re.findall(r"(\w+)\(self", use)}
    assert named and all(hook_instead(name) for name in INSTEAD)
