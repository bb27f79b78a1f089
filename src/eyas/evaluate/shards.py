"""What one process saw of a split, and how the parts of all processes become one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from numpy.typing import NDArray

from eyas.evaluate.boxlist import Areas, BoxList, Frame


@dataclass(frozen=True)
class Shard:
    """Plain arrays and numbers of one process, or of several joined.

    Attributes:
        files: path of each image.
        stats: one dict of arrays for each batch, as `DetMetrics` collects them; ``*_img`` index `files`.
        losses: loss item -> its value times B for each batch.
        kept: detections, labels, areas to ignore and frame of each batch, where files or COCO need them.
        spent: milliseconds of each stage.
    """

    files: list[str]
    stats: list[dict[str, NDArray]]
    losses: dict[str, list[float]]
    kept: list[tuple[BoxList, BoxList, Areas, Frame]]
    spent: dict[str, float]


def join_shards(shards: Sequence[Shard]) -> Shard:
    """Return all shards as one, in order: what a single process would have, had it seen everything in this order.

    Processes that all saw the same images had a loader that is not shared between them; then any of them is the whole.
    """
    if all(shard.files == shards[0].files for shard in shards):
        return shards[0]
    files: list[str] = []
    stats: list[dict[str, NDArray]] = []
    losses: dict[str, list[float]] = {}
    for shard in shards:
        stats += [_shifted(batch, len(files)) for batch in shard.stats]
        files += shard.files
        for name, values in shard.losses.items():
            losses.setdefault(name, []).extend(values)
    return Shard(
        files=files,
        stats=stats,
        losses=losses,
        kept=[batch for shard in shards for batch in shard.kept],
        spent={stage: sum(shard.spent[stage] for shard in shards) for stage in shards[0].spent},
    )


def _shifted(batch: dict[str, NDArray], images: int) -> dict[str, NDArray]:
    return {key: value + images if key.endswith("_img") else value for key, value in batch.items()}
