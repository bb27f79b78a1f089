"""Ways to change a training: the base class, drawn with every hook, and one file per customisation."""

from eyas.callbacks.base import ADJUSTERS, EVENTS, Callback, CallbackList, Decision, StockCallback
from eyas.callbacks.best import BestBy
from eyas.callbacks.class_weights import ClassWeights
from eyas.callbacks.clip import ClipGradNorm, ClipGradValue, clip_grad_norm, clip_grad_value
from eyas.callbacks.copy_blend import CopyBlend
from eyas.callbacks.freeze import Freeze, set_frozen
from eyas.callbacks.ignore import IgnoreAreas
from eyas.callbacks.keep import KeepBest
from eyas.callbacks.metrics import MetricReport
from eyas.callbacks.rates import LayerRates, layer_rates
from eyas.callbacks.schedule import Schedule, TorchSchedule
from eyas.callbacks.stop import EarlyStop
from eyas.callbacks.sync_bn import SyncBatchNorm
from eyas.nn.norms import hold_norms

__all__ = [
    "ADJUSTERS",
    "EVENTS",
    "BestBy",
    "Callback",
    "CallbackList",
    "ClassWeights",
    "ClipGradNorm",
    "ClipGradValue",
    "CopyBlend",
    "Decision",
    "EarlyStop",
    "Freeze",
    "IgnoreAreas",
    "KeepBest",
    "LayerRates",
    "MetricReport",
    "Schedule",
    "StockCallback",
    "SyncBatchNorm",
    "TorchSchedule",
    "clip_grad_norm",
    "clip_grad_value",
    "hold_norms",
    "layer_rates",
    "set_frozen",
]
