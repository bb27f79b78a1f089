"""The components that options ask for, in the order in which they work.

Those that change the model and its groups come first, then what was measured; after the user's own callbacks come
clipping, which has the last word on gradients, and choices.
"""

from eyas.callbacks.base import StockCallback
from eyas.callbacks.best import BestBy
from eyas.callbacks.class_weights import ClassWeights
from eyas.callbacks.clip import ClipGradNorm, ClipGradValue
from eyas.callbacks.freeze import Freeze
from eyas.callbacks.ignore import IgnoreAreas
from eyas.callbacks.keep import KeepBest
from eyas.callbacks.metrics import MetricReport
from eyas.callbacks.rates import LayerRates
from eyas.callbacks.schedule import TorchSchedule
from eyas.callbacks.stop import EarlyStop
from eyas.callbacks.sync_bn import SyncBatchNorm
from eyas.callbacks.teacher import Teacher

FIRST: tuple[type[StockCallback], ...] = (
    IgnoreAreas, SyncBatchNorm, Freeze, LayerRates, ClassWeights, Teacher, MetricReport,
)  # fmt: skip
LAST: tuple[type[StockCallback], ...] = (ClipGradNorm, ClipGradValue, TorchSchedule, BestBy, KeepBest, EarlyStop)
