"""Ways to change a training: the base class, drawn with every hook, and one file per customisation."""

from eyas.callbacks.base import ADJUSTERS, EVENTS, Callback, CallbackList
from eyas.callbacks.clip import ClipGradNorm, clip_grad_norm

__all__ = ["ADJUSTERS", "EVENTS", "Callback", "CallbackList", "ClipGradNorm", "clip_grad_norm"]
