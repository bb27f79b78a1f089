"""PyTorch's own exported program: a graph that runs without the classes of the model, see ``torch.export``."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from pickle import UnpicklingError
from typing import ClassVar
from zipfile import BadZipFile

import torch
from torch import Tensor
from torch.export import ExportedProgram as Program

from eyas.export.base import LEAST_CELLS, BoxModel, Card, Exported, ExportError, quiet, untraceable

CARD = "eyas.json"  # the extra file that holds the card
LARGEST_BATCH = 1024
LARGEST_SIDE = 8192
# What tracing raises where the code of a model asks for the values of its tensors, besides subclasses of these.
UNTRACEABLE = (RuntimeError, TypeError, ValueError)
# What reading raises of a file that is damaged, somewhere in its archive or in the texts and tensors there.
UNREADABLE = (
    RuntimeError, ValueError, LookupError, TypeError, AttributeError, AssertionError, EOFError, BadZipFile,
    UnpicklingError,
)  # fmt: skip
INSTEAD = (
    "What leaves less open may work: format=torchscript, which records one run, or format=onnx without dynamic; and "
    "with dynamic a larger imgsz."
)


@dataclass(frozen=True)
class ExportedProgram:
    """``.pt2``: fp32, batches of 1 to 1024.

    ``torch.export.load`` opens it in any process; PyTorch calls that unsafe for files from others.

    Args:
        dynamic: sides may be any multiples of the largest stride, not ``imgsz`` alone.
    """

    dynamic: bool = False

    name: ClassVar[str] = "pt2"
    suffix: ClassVar[str] = ".pt2"
    runs: ClassVar[bool] = True

    def write(self, model: BoxModel, path: Path, card: Card) -> None:
        """Trace the model and write its graph, weights and card.

        Raises:
            ExportError: its code depends on values that only a run knows.
        """
        card = replace(card, dynamic=self.dynamic)
        torch.export.save(traced(model, card), path, extra_files={CARD: card.text()})

    def open(self, path: Path) -> Exported:
        """Return what runs a written file, on the CPU.

        Raises:
            ExportError: it holds no card.
        """
        extra = {CARD: ""}
        try:
            with quiet("torch.export"):  # it logs the trace of what it then says in other words
                program = torch.export.load(path, extra_files=extra)
        except UNREADABLE as error:
            raise ExportError(
                f"{path} is no exported program that this PyTorch reads: it is cut off, damaged, of another version or "
                "another kind of file. Export the checkpoint again."
            ) from error
        if not extra[CARD]:
            raise ExportError(f"{path} holds no {CARD}: it is a program that Eyas has not written")
        run = program.module()

        def answer(images: Tensor) -> Tensor:
            try:
                return run(images)
            except AssertionError as error:  # of the graph itself
                batch, _, height, width = images.shape
                raise ValueError(f"{path.name} takes no {batch} images of {height} x {width} px: {error}") from error

        return Exported(Card.from_text(extra[CARD]), answer)


def traced(model: BoxModel, card: Card) -> Program:
    """Return the graph of a model for what its card says of batch and sides.

    Raises:
        ExportError: its code depends on values that only a run knows.
    """
    images = model.example(card, card.batch or 2)  # with one, any number would become one
    try:
        with torch.no_grad():
            return torch.export.export(model, (images,), dynamic_shapes=(free_dimensions(card),))
    except UNTRACEABLE as error:
        raise untraceable(model, "torch.export", error, INSTEAD) from error


def free_dimensions(card: Card) -> dict[int, object]:
    """Return the dimensions of the images that a graph leaves open."""
    free: dict[int, object] = {}
    if card.batch is None:
        free[0] = torch.export.Dim("batch", min=1, max=LARGEST_BATCH)
    if card.dynamic:
        cell = int(max(card.stride))
        for axis, name in ((2, "rows"), (3, "columns")):
            free[axis] = cell * torch.export.Dim(name, min=LEAST_CELLS, max=LARGEST_SIDE // cell)
    return free
