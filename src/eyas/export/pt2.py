"""PyTorch's own exported program: a graph that runs without the classes of the model, see ``torch.export``."""

from __future__ import annotations

from pathlib import Path

import torch

from eyas.export.base import BoxModel, Card, Exported, ExportError

CARD = "eyas.json"  # the extra file that holds the card
LARGEST_BATCH = 1024
# What tracing raises where the code of a model asks for the values of its tensors, besides subclasses of these.
UNTRACEABLE = (RuntimeError, TypeError, ValueError)


class ExportedProgram:
    """``.pt2``: fp32, images of one size, batches of 1 to 1024.

    ``torch.export.load`` opens it in any process; PyTorch calls that unsafe for files from others.
    """

    name = "pt2"
    suffix = ".pt2"

    def write(self, model: BoxModel, path: Path, card: Card) -> None:
        """Trace the model and write its graph, weights and card.

        Raises:
            ExportError: its code depends on values that only a run knows.
        """
        images = torch.zeros(2, model.detector.yaml["channels"], card.imgsz, card.imgsz)  # with one, B would be fixed
        batch = {0: torch.export.Dim("batch", min=1, max=LARGEST_BATCH)}
        try:
            with torch.no_grad():
                program = torch.export.export(model, (images,), dynamic_shapes=(batch,))
        except UNTRACEABLE as error:
            kind, reason = type(model.detector), str(error).strip().partition("\n")[0]
            raise ExportError(f"torch.export cannot follow a {kind.__name__} ({kind.family}): {reason}") from error
        torch.export.save(program, path, extra_files={CARD: card.text()})

    def open(self, path: Path) -> Exported:
        """Return what runs a written file, on the CPU.

        Raises:
            ExportError: it holds no card.
        """
        extra = {CARD: ""}
        program = torch.export.load(path, extra_files=extra)
        if not extra[CARD]:
            raise ExportError(f"{path} holds no {CARD}: it is a program that Eyas has not written")
        return Exported(Card.from_text(extra[CARD]), program.module())
