"""The page of a run: ``report.html`` in its folder, to be opened in any browser while the run trains.

What: curves, results per class, confusion, the worst images with their truth beside what was found, plan, effects,
machine and speed, in one file that asks nothing of the network.
When: before the first epoch, after every validation, at the end or when the run is stopped; never between two batches.
Default: on; ``report=False`` leaves it out.
Hazards: none for the run, which goes on where the page cannot be written.
"""

from __future__ import annotations

import math
import os
import platform
import time
from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING

import numpy as np
import torch

from eyas import __version__
from eyas.callbacks.base import Callback
from eyas.callbacks.metrics import class_names
from eyas.device import peak_memory
from eyas.files import replacing
from eyas.metrics.detection import DetMetrics
from eyas.report import overview
from eyas.report.attempts import Attempts
from eyas.report.charts import chart, panels
from eyas.report.html import document, folded, section, table, tiles
from eyas.report.worst import PictureBook, gallery, worst_images
from eyas.run.protocol import Run
from eyas.tables import duration

if TYPE_CHECKING:
    from eyas.metrics.confusion import ConfusionMatrix

PAGE = "report.html"
AGAIN = 30  # seconds after which the page of a run that trains opens itself anew
MOST_CLASSES = 400  # rows of the table: those with the lowest average precision
LARGEST_MATRIX = 30  # classes that a matrix shows; of more, the pairs that are taken for each other most often
MOST_PAIRS = 40
Cells = list[list[object]]


class RunPage(Callback):
    """Keeps ``report.html`` up to date."""

    on = "main"

    def __init__(self) -> None:
        self.attempt = Attempts(f"{PAGE} could not be written", patience=10)
        self.measured_in = 0  # 1-based epoch of the latest validation that this process has seen
        self.speed = 0.0  # training images per second in the latest epoch
        self.began = 0.0
        self.begun = False
        self.pictures: PictureBook | None = None
        self.plan = ""

    def effects(self) -> dict[str, object]:
        """Return that it is written."""
        return {"report": True}

    def on_train_start(self, trainer: Run) -> None:
        self.begun = True
        self.attempt(lambda: self.tell_plan(trainer))
        self.write(trainer, "training")

    def on_train_epoch_start(self, trainer: Run) -> None:
        self.began = time.monotonic()

    def on_train_epoch_end(self, trainer: Run) -> None:
        self.speed = trainer.plan.images / max(time.monotonic() - self.began, 1e-9)

    def on_val_end(self, trainer: Run) -> None:
        self.measured_in = trainer.epoch + 1

    def on_fit_epoch_end(self, trainer: Run) -> None:
        if self.measured_in == trainer.epoch + 1 or trainer.validator is None:
            self.write(trainer, "training")

    def on_train_end(self, trainer: Run) -> None:
        self.measured_in = trainer.best_epoch  # the final evaluation is that of the best weights
        self.write(trainer, "finished")

    def on_exception(self, trainer: Run) -> None:
        if self.begun:
            self.write(trainer, "stopped")

    def write(self, trainer: Run, state: str) -> None:
        """Write the page, whole or not at all; where that fails, the run goes on."""

        def whole() -> None:
            text = self.page(trainer, state).encode("utf-8", "backslashreplace")
            with replacing(trainer.save_dir / PAGE) as file:
                file.write(text)

        self.attempt(whole)

    def page(self, trainer: Run, state: str) -> str:
        """Return the page as it is now; ``state`` is training, finished or stopped."""
        rows, best = trainer.history.rows, trainer.best_epoch or None
        effects = trainer.effects.rows() if trainer.effects is not None else []
        body = [
            self.head(trainer, state),
            section("Curves", f'<div class="charts">{"".join(chart(panel, best) for panel in panels(rows))}</div>')
            if rows
            else '<p class="soft">Numbers come with the end of the first epoch.</p>',
            *self.measured(trainer),
            bad_images(trainer),
            notes(trainer),
            self.plan,
            section("What the settings did", table(("setting", "value", "from", "seen"), effects)),
            section("Machine and speed", table(("what", "value"), self.machine(trainer))),
        ]
        return document(trainer.save_dir.name, "".join(body), again=AGAIN if state == "training" else 0)

    # -- its parts -----------------------------------------------------------------------------------------------------
    def head(self, trainer: Run, state: str) -> str:
        """Return what the run is, how far it has come, and the numbers that count."""
        rows, error = trainer.history.rows, trainer.exception
        done = int(rows[-1]["epoch"]) if rows else 0
        values = [("epochs", f"{done} of {trainer.epochs}"), ("time so far", duration(trainer.elapsed()))]
        if state == "training" and done and done < trainer.epochs:
            values.append(("still to go, about", duration(trainer.elapsed() / done * (trainer.epochs - done))))
        if trainer.best_epoch:
            values.append(("best epoch", str(trainer.best_epoch)))
            values += [(name, f"{value:.4f}") for name, value in self.best_numbers(trainer)]
        why = (
            f": {type(error).__name__}, {(str(error).splitlines() or [''])[0]}" if state == "stopped" and error else ""
        )
        where = f"{trainer.args.model} on {data_name(trainer.args.data)}, {trainer.plan.images} images"
        return (
            f"<header><h1>{escape(trainer.save_dir.name)} <span class='state {state}'>{state}{escape(why)}</span></h1>"
            f"<p>{escape(where)} of {trainer.args.imgsz} px</p>"
            f"<p class='soft'>{escape(str(trainer.save_dir))}, written {time.strftime('%Y-%m-%d %H:%M:%S')}</p>"
            f"{tiles(values)}</header>"
        )

    def best_numbers(self, trainer: Run) -> list[tuple[str, float]]:
        """Return the metrics of the best epoch, as they were logged."""
        row = next((row for row in trainer.history.rows if row["epoch"] == trainer.best_epoch), {})
        found = [(key, value) for key, value in row.items() if key.endswith("(B)") and math.isfinite(value)]
        return [(key.removeprefix("metrics/").removesuffix("(B)"), value) for key, value in found[:8]]

    def measured(self, trainer: Run) -> list[str]:
        """Return what the latest validation found: results per class, confusion, worst images."""
        metrics = getattr(trainer.validator, "metrics", None)  # a user's validator may have none, or of another kind
        if not isinstance(metrics, DetMetrics) or not metrics.stats or not self.measured_in:
            return []
        when = f'<p class="soft">Of the weights after epoch {self.measured_in}.</p>'
        names = class_names(trainer)
        self.pictures = self.pictures or PictureBook(trainer.test_loader)
        images = worst_images(metrics)
        self.pictures.keep([image.file for image in images])
        shown = gallery(images, names, self.pictures)
        key = (
            '<p class="soft key">The lowest F1 of an image at IoU 0.5 and '
            f"score {metrics.box.best_conf:.2f}; among equals, the most mistakes first. Left the labels "
            '<i class="truth" style="border-color:#00d26a"></i>, right what was found: '
            '<i style="border-color:#3b9dff"></i>right, <i style="border-color:#ff5a36"></i>wrong.</p>'
        )
        return [
            section("Classes", when + per_class(metrics)),
            section("Confusion", confusion(metrics.confusion_matrix)),
            section("Worst images", key + shown) if shown else "",
        ]

    def tell_plan(self, trainer: Run) -> None:
        """Note what was decided for this run; it stays so, and takes a while to be found out."""
        options = [[name, str(value), trainer.args.source(name)] for name, value in trainer.args]
        self.plan = section(
            "Plan",
            table(overview.DECISION_HEADER, overview.decision_rows(trainer)),
            folded("Stages of the run", table(overview.STAGE_HEADER, overview.stage_rows(trainer))),
            folded("Groups of parameters", table(overview.GROUP_HEADER, overview.group_rows(trainer))),
            folded("All options", table(("option", "value", "from"), options)),
        )

    def machine(self, trainer: Run) -> Cells:
        """Return where it runs and how fast."""
        on_gpu = trainer.device.type == "cuda"
        device = torch.cuda.get_device_name(trainer.device) if on_gpu else f"{torch.get_num_threads()} CPU threads"
        rows: Cells = [
            ["device", f"{trainer.device}, {device}"],
            ["processes", str(max(trainer.world_size, 1))],
            ["precision", str(trainer.amp_dtype or torch.float32).removeprefix("torch.")],
            ["system", f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"],
            ["versions", f"eyas {__version__}, torch {torch.__version__}, Python {platform.python_version()}"],
        ]
        if self.speed:
            rows.append(["training", f"{self.speed:.1f} images per second in the latest epoch"])
        if speed := getattr(trainer.validator, "speed", None):
            spent = ", ".join(f"{ms:.1f} {stage}" for stage, ms in speed.items())
            rows.append(["validation", f"{spent} (ms per image)"])
        if math.isfinite(memory := peak_memory(trainer.device)):
            rows.append(["memory at most", f"{memory / 2**30:.1f} GiB"])
        return rows


def bad_images(trainer: Run) -> str:
    """Return which images could not be loaded, and what was done about them; nothing where there are none."""
    found = [(split, path, why) for split, bad in trainer.bad_images.items() for path, why in sorted(bad.items())]
    if not found:
        return ""
    said = (
        f'<p class="soft">{len(found):,} in all, of which {trainer.args.bad_images:g} of a split are allowed. In '
        "training the next image of the order took the place of each; in validation it was left out.</p>"
    )
    return section("Images that could not be loaded", said + table(("split", "image", "why"), found[:MOST_CLASSES]))


def notes(trainer: Run) -> str:
    """Return what happened to the run that its numbers do not tell; nothing where that is nothing."""
    lines = "".join(f"<li>{escape(note)}</li>" for note in trainer.notes)
    return section("What happened on the way", f"<ul>{lines}</ul>") if lines else ""


def data_name(data: object) -> str:
    """Return what people call a data set: its name or file, or that it was given as a mapping."""
    return "data given as a mapping" if isinstance(data, Mapping) else str(data)


def per_class(metrics: DetMetrics) -> str:
    """Return the results of every class that occurs, the weakest first where there are many."""
    rows = metrics.summary(decimals=4)
    if not rows:
        return "<p>There are no labels in this split.</p>"
    kept = sorted(rows, key=lambda row: float(row["mAP50-95"]))[:MOST_CLASSES] if len(rows) > MOST_CLASSES else rows
    more = f'<p class="soft">The {len(kept)} weakest of {len(rows)} classes.</p>' if len(kept) < len(rows) else ""
    return more + table(list(rows[0]), [list(row.values()) for row in kept])


def confusion(found: ConfusionMatrix) -> str:
    """Return which class was taken for which: a matrix of shares of the true class, or the most frequent pairs."""
    if not found.matrix.sum():
        return ""
    said = (
        f'<p class="soft">Detections with a score above {found.conf:g}, paired at IoU above {found.iou:g}. The row '
        "<em>background</em> counts what was missed, the column what is not there.</p>"
    )
    return said + (matrix(found) if found.nc <= LARGEST_MATRIX else pairs(found))


def matrix(found: ConfusionMatrix) -> str:
    """Return the whole matrix; the darker, the larger the share of the true class."""
    labels, shares = found.labels(), found.normalized()
    lines = []
    for row, label in enumerate(labels):
        cells = "".join(
            f'<td style="background:rgb(31 95 191/{share:.2f})">{count or ""}</td>'
            for count, share in zip(found.matrix[row].tolist(), (0.75 * shares[row]).tolist(), strict=True)
        )
        lines.append(f"<tr><th>{escape(label)}</th>{cells}</tr>")
    head = "".join(f"<th>{escape(label)}</th>" for label in labels)
    return (
        f'<div class="scroll"><table class="matrix"><caption class="soft">rows: predicted, columns: true</caption>'
        f"<thead><tr><td></td>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
    )


def pairs(found: ConfusionMatrix) -> str:
    """Return the most frequent mistakes, as a table."""
    labels, wrong = found.labels(), found.matrix.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:MOST_PAIRS]
    places = [divmod(int(place), len(labels)) for place in order]
    rows = [[labels[true], labels[predicted], int(wrong[predicted, true])] for predicted, true in places]
    return table(("true", "predicted", "times"), [row for row in rows if row[2]])
