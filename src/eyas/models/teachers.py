"""Networks that a detector learns from beside its labels: frozen, and never a part of it.

Legend: ``B`` images, ``D`` channels of the teacher's map, ``h`` x ``w`` cells.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from eyas.checkpoint import CheckpointError, load_checkpoint, read_tensors
from eyas.files import sha256_of
from eyas.models.backbones.host import OPTIONAL, resampled
from eyas.models.backbones.vit import VITS, VisionTransformer, ViTSpec
from eyas.models.backbones.vit_keys import UnknownViTError, fitted, read_vit
from eyas.models.detector import Detector
from eyas.models.licences import consent
from eyas.models.lineage import Ancestor, Ancestors, descent
from eyas.models.rebuild import network_from
from eyas.models.weights import check_numbers
from eyas.names import a_few


class TeacherNet(nn.Module):
    """A frozen network, in evaluation for ever.

    Attributes:
        channels: D.
        ancestors: what its weights descend from.
    """

    channels: int
    ancestors: Ancestors

    def features(self, images: Tensor, h: int, w: int) -> Tensor:
        """Return a map (B, D, h, w) of images (B, ch, H, W) in [0, 1]; no gradient."""
        raise NotImplementedError

    def train(self, mode: bool = True) -> TeacherNet:
        """Stay in evaluation."""
        return super().train(False)


class FoundationTeacher(TeacherNet):
    """A vision transformer: the normalised tokens of its patches, one for each cell of the map asked for."""

    def __init__(self, spec: ViTSpec, state: dict[str, Tensor], ancestors: Ancestors) -> None:
        super().__init__()
        self.vit, self.channels, self.ancestors = VisionTransformer(spec), spec.width, ancestors
        own = self.vit.state_dict()
        state = {k.removeprefix("vit."): v for k, v in resampled(_led(state), _led(own)).items() if k[4:] in own}
        check_numbers(state, own)
        missing = [k for k in own if k not in state and not f"vit.{k}".endswith(OPTIONAL)]
        if missing:
            raise UnknownViTError(f"these are no whole weights of a teacher: {a_few(missing)} missing")
        self.vit.load_state_dict(state, strict=False)
        self.requires_grad_(False).eval()

    @torch.no_grad()
    def features(self, images: Tensor, h: int, w: int) -> Tensor:
        """Return (B, D, h, w) of images resized so that patches are cells (spec detr-more 7)."""
        side = self.vit.spec.patch
        fitting = interpolate(images, size=(h * side, w * side), mode="bicubic", align_corners=False, antialias=True)
        return self.vit(fitting.clamp(0, 1)).maps[-1]


class DetectorTeacher(TeacherNet):
    """A trained detector: its deepest map, and its raw answers."""

    def __init__(self, detector: Detector, ancestors: Ancestors) -> None:
        super().__init__()
        self.detector, self.ancestors = detector, ancestors
        self.requires_grad_(False).eval()
        self.channels = channels_of(detector)
        self.answers: Any = None

    @torch.no_grad()
    def features(self, images: Tensor, h: int, w: int) -> Tensor:
        """Return its deepest map, resized to (B, D, h, w); ``answers`` are its raw predictions then."""
        with watched(self.detector.deepest()) as seen:
            self.answers = self.detector(images)[1]
        deepest: Tensor = seen[-1]
        return deepest if deepest.shape[-2:] == (h, w) else interpolate(deepest, size=(h, w), mode="bilinear")


@contextmanager
def watched(module: nn.Module) -> Iterator[list[Any]]:
    """Collect what a module returns while the block runs."""
    seen: list[Any] = []
    hook = module.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    try:
        yield seen
    finally:
        hook.remove()


@torch.no_grad()
def channels_of(detector: Detector) -> int:
    """Return the channels of a detector's deepest map, found by sending one blank image through; nothing is changed."""
    training, device = detector.training, next(detector.parameters()).device
    side = 2 * int(detector.stride.max())
    detector.eval()
    try:
        with watched(detector.deepest()) as seen:
            detector.predict(torch.zeros(1, detector.yaml["channels"], side, side, device=device))
    finally:
        detector.train(training)
    return int(seen[-1].shape[1])


def open_teacher(path: str | Path, accepted: Collection[str] = ()) -> TeacherNet:
    """Return the teacher in a file: a vision transformer's weights, or a trained detector; known by what is in it.

    Raises:
        FileNotFoundError: there is no such file.
        UnknownViTError, CheckpointError: it holds neither.
        LicenceError: its licence asks for a consent that nobody has given.
    """
    path = Path(path)
    content: Any
    try:
        content = load_checkpoint(path)
    except CheckpointError as error:
        content = read_tensors(path)
        try:
            found = read_vit(content)
        except UnknownViTError:
            raise CheckpointError(f"{path} is no teacher: no vision transformer, and no detector ({error})") from error
        names = found.names()
        if not names:
            raise UnknownViTError(f"{path} holds {found}: no network of these sizes is known here") from error
        origin = found.origin
        said = consent(origin.licence, str(path), accepted)
        link = Ancestor(f"teacher: {found}", origin.licence, origin.source, origin.trained_on, sha256_of(path), said)
        spec = VITS[names[0]]
        return FoundationTeacher(spec, fitted(found, names[0], spec), (link,))
    chain = descent(content)
    for link in chain:  # what binds those that descend from it binds whoever learns from it
        consent(link.licence, f"{path} descends from {link.name}", accepted)
    return DetectorTeacher(network_from(content), (*chain[:-1], _as_teacher(chain[-1])) if chain else ())


def _as_teacher(link: Ancestor) -> Ancestor:
    return replace(link, name=f"teacher: {link.name}")


def _led(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"vit.{key}": value for key, value in state.items()}
