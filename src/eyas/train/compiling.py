"""`torch.compile` of a network's parts and of its loss: tried before the first step, and given up with a reason.

Legend: ``B`` images of this process.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from eyas import dist
from eyas.log import LOGGER, warn
from eyas.models import Detector
from eyas.train.compiled_loss import CompiledLoss
from eyas.train.trials import beginning, difference, floats, leaves
from eyas.types import Batch

# Largest difference of predictions, relative to their norm, between compiled and written code: in bfloat16 another
# order of summation differs by about 0.01, code that means something else by about 1.
TOLERANCE = 0.1
# Kernels are not chosen by timing them: a resumed run must choose the same.
SETTINGS: Mapping[str, Any] = {"backend": "inductor", "options": {"deterministic": True}}
OBJECTS = 2  # of an image that is made up to try the network


class Compiled:
    """The parts of a network and the methods of its loss that `torch.compile` has taken, or why it has not.

    Whatever was not tried beforehand runs as it is written: another size of images, evaluation, a user's callback. So
    compiling never begins in the middle of an epoch, and a step of one state of the run is always the same code.

    Args:
        network: its `compiled_parts` are taken for the sizes tried, its `compiled_layers` for any number of queries,
            and its loss for any number of objects.

    Attributes:
        refused: why nothing of the network is compiled; empty while something is.
        loss: what of its loss is compiled: of a network that is no `Detector`, nothing.
        tried: what of the network may change between epochs, as it was when it was tried.
    """

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self.refused = refusal(network)
        self.tried: tuple[str, ...] | None = None
        self.told: set[str] = set()
        self.taken: list[nn.Module] = []
        self.loss = CompiledLoss(getattr(network, "criterion", None), SETTINGS, objection_to_loss(network))
        if isinstance(network, Detector) and not self.refused:
            for part in network.compiled_parts():
                part.compile(dynamic=False, **SETTINGS)
            for layer in network.compiled_layers():
                layer.compile(dynamic=True, **SETTINGS)
            self.taken = [*network.compiled_parts(), *network.compiled_layers()]

    def is_stale(self) -> bool:
        """Whether it has to follow: it never has, or something was frozen or thawed since."""
        return self.tried != switches(self.network)

    def follow(self, images: int, sides: Sequence[int], autocast: AbstractContextManager[None]) -> None:
        """Compile for B square images of some sides in pixels, and for what is frozen now.

        Every process must call it, with a network that no wrapper hooks into. Where a part cannot be compiled, or
        computes something else then, all of them go on with it as it is written, and the log says why.
        """
        began, self.tried = time.monotonic(), switches(self.network)
        if self.taken or self.loss.methods:
            text = "compiling for %d images of %s px: this takes minutes, and less where it was done before"
            LOGGER.info(text, images, ", ".join(map(str, sides)))
        for side in sides:
            self.refused = self.refused or trial(self.network, images, side, autocast)
        if dist.any_rank(bool(self.refused)):
            self.refused = self.refused or "another process could not compile it"
            self.tell(f"The network runs as it is written: {self.refused}")
            self.release_network()
        if self.loss.methods:
            self.try_loss(images, sides, autocast)
        if self.loss.refused:
            self.tell(f"The loss runs as it is written: {self.loss.refused}")
        if self.taken or self.loss.taken:
            LOGGER.info("compiled in %.0f s", time.monotonic() - began)
            torch.compiler.set_stance("eager_on_recompile")

    def try_loss(self, images: int, sides: Sequence[int], autocast: AbstractContextManager[None]) -> None:
        """Compile the loss for any number of objects, on what the network predicts of images of all sides."""
        assert isinstance(self.network, Detector)
        with torch.compiler.set_stance("default"), undone(self.network), self.loss.trying():
            for side in sides:
                for objects in (OBJECTS * images, (OBJECTS + 1) * images + 1):
                    self.loss.settle(objects > OBJECTS * images)
                    batch = made_up(self.network, images, side, objects)
                    with autocast:
                        predictions = leaves(self.network.predict_batch(batch))
                        self.network.loss(batch, predictions)

    def tell(self, text: str) -> None:
        """Say once that something is not compiled."""
        if text not in self.told:
            warn(text)
        self.told.add(text)

    def release_network(self) -> None:
        """Give the network back as it is written."""
        for module in self.taken:
            module._compiled_call_impl = None  # what compile() sets; torch has no word for taking it back
        self.taken = []

    def release(self) -> None:
        """Give network and loss back as they are written, and leave torch's compiler as it was found."""
        used = self.taken or self.loss.taken
        self.release_network()
        self.loss.release()
        torch.compiler.set_stance("default")
        if used:  # torch compiles a function for at most 8 states, those of networks that are gone included
            torch.compiler.reset()


def refusal(network: nn.Module) -> str:
    """Return why a network cannot be compiled; empty if nothing is known against it."""
    name = type(network).__name__
    if not isinstance(network, Detector) or not network.compiled_parts():
        return f"{name} does not say what of it can be compiled (compiled_parts)."
    if any(module._forward_hooks for module in network.modules()):
        return "somebody looks at what a layer inside it returns, as a teacher does."
    if any(isinstance(module, nn.SyncBatchNorm) for module in network.modules()):
        return "synchronised normalisation exchanges numbers between processes in every layer; sync_bn=false allows it."
    return ""


def objection_to_loss(network: nn.Module) -> str:
    """Return why a network's loss must not be asked for nothing, whatever criterion it has; empty if it may."""
    name = type(network).__name__
    if not isinstance(network, Detector):
        return f"{name} is no Detector."
    if not type(network).loss.__module__.startswith("eyas."):
        return f"{name}.loss is not that of Eyas."
    return ""


def switches(network: nn.Module) -> tuple[str, ...]:
    """Return the names of the parameters that train and of the modules in training mode: code depends on it."""
    trained = (name for name, parameter in network.named_parameters() if parameter.requires_grad)
    return (*trained, *(f"{name}()" for name, module in network.named_modules() if module.training))


def trial(network: nn.Module, images: int, side: int, autocast: AbstractContextManager[None]) -> str:
    """Compile for made-up images, forward and backward; return what is wrong, empty if nothing is.

    Weights, statistics and random numbers are afterwards as they were before; gradients are None.
    """
    assert isinstance(network, Detector)
    outputs: list[list[Tensor]] = []
    try:
        for stance in ("default", "force_eager"):
            with torch.compiler.set_stance(stance), autocast:
                outputs.append(tried(network, images, side))
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # a compiler's, or a user's model's: anything may come
        return f"torch.compile failed ({beginning(error)})."
    apart = difference(*outputs)
    return "" if apart <= TOLERANCE else f"compiled, its predictions differ by {apart:.2g} of their size."


def tried(network: Detector, images: int, side: int) -> list[Tensor]:
    """Return what a network predicts of made-up images, with gradients taken; of itself nothing changes."""
    with undone(network):
        predictions = floats(network.predict_batch(made_up(network, images, side, OBJECTS * images)))
        torch.stack([part.float().square().mean() for part in predictions]).sum().backward()
    return predictions


@contextmanager
def undone(network: nn.Module) -> Iterator[None]:
    """Let a network be tried out, with the same random numbers each time; nothing of that is left."""
    device = next(network.parameters()).device
    before = [buffer.clone() for buffer in network.buffers()]
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []), warnings.catch_warnings():
            # torch looks at the gradients of what flows from part to part, and warns of itself.
            warnings.filterwarnings("ignore", message="The .grad attribute of a Tensor that is not a leaf")
            torch.manual_seed(0)
            yield
    finally:
        for buffer, kept in zip(network.buffers(), before, strict=True):
            buffer.copy_(kept)
        network.zero_grad()


def made_up(network: Detector, images: int, side: int, objects: int) -> Batch:
    """Return a batch of noise with so many objects, spread over its images, in the memory layout of the weights."""
    filters = next(parameter for parameter in network.parameters() if parameter.ndim == 4)
    last = filters.is_contiguous(memory_format=torch.channels_last) and not filters.is_contiguous()
    noise = torch.rand(images, network.yaml["channels"], side, side, device=filters.device)
    return {
        "img": noise.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format),
        "cls": torch.zeros(objects, 1, device=filters.device),
        "bboxes": 0.2 + 0.6 * torch.rand(objects, 4, device=filters.device),
        "batch_idx": torch.arange(objects, device=filters.device).float() % images,
        "max_objects": -(-objects // images),
    }
