"""What several processes saw, joined: the same as if one had seen all."""

from __future__ import annotations

import numpy as np
import pytest

from eyas.evaluate.shards import Shard, join_shards


def shard(seed: int, files: list[str], batches: int = 2) -> Shard:
    rng = np.random.default_rng(seed)
    one = lambda: {  # noqa: E731
        "conf": rng.random(3),
        "pred_img": rng.integers(0, len(files), 3),
        "target_img": rng.integers(0, len(files), 2),
    }
    return Shard(
        files=files,
        stats=[one() for _ in range(batches)],
        losses={"box_loss": rng.random(batches).tolist()},
        kept=[],
        spent={"inference": float(seed), "loss": 1.0},
    )


def test_images_are_counted_on_and_everything_else_is_added() -> None:
    parts = [shard(1, ["a", "b"]), shard(2, ["c"]), shard(3, ["d", "e"])]
    whole = join_shards(parts)
    assert whole.files == ["a", "b", "c", "d", "e"]
    for key in ("pred_img", "target_img"):
        named = [whole.files[i] for batch in whole.stats for i in batch[key]]
        assert named == [part.files[i] for part in parts for batch in part.stats for i in batch[key]]
    assert np.array_equal(
        np.concatenate([batch["conf"] for batch in whole.stats]),
        np.concatenate([batch["conf"] for part in parts for batch in part.stats]),
    )
    assert whole.losses == {"box_loss": [value for part in parts for value in part.losses["box_loss"]]}
    assert whole.spent == {"inference": 6.0, "loss": 3.0}


def test_a_loader_that_is_not_shared_counts_once() -> None:
    parts = [shard(1, ["a", "b"]), shard(1, ["a", "b"])]
    assert join_shards(parts) is parts[0]


@pytest.mark.parametrize("place", [0, 1])
def test_a_process_without_a_batch_adds_nothing(place: int) -> None:
    full, empty = shard(1, ["a"]), Shard([], [], {}, [], {"inference": 0.0, "loss": 0.0})
    whole = join_shards([empty, full] if place == 0 else [full, empty])
    assert (whole.files, whole.losses) == (full.files, full.losses)
    assert [batch["pred_img"].tolist() for batch in whole.stats] == [b["pred_img"].tolist() for b in full.stats]
