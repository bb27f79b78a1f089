"""What a validation found comes back from its file as it was, bounded, and for a part of the classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from eyas.metrics import DetMetrics, metric_named
from eyas.metrics.matching import match_detections
from eyas.metrics.stored import epochs_in, read_epoch, write_epoch

NAMES = {0: "cat", 1: "dog", 2: "cow"}


def validation(seed: int, images: int = 30, offset: int = 0, only: int | None = None) -> DetMetrics:
    """Metrics of random boxes, some of them found again; ``only`` collects one class alone."""
    random, metrics = np.random.default_rng(seed), DetMetrics(NAMES)
    for image in range(images):
        corner = random.uniform(0, 200, (6, 2))
        truth = np.hstack([corner, corner + random.uniform(8, 120, (6, 2))]).astype(np.float32)
        cls = random.integers(0, 3, 6)
        shift = random.normal(0, 4, (9, 4))
        found = (truth[random.integers(0, 6, 9)] + shift).astype(np.float32)
        found_cls, conf = random.integers(0, 3, 9), random.uniform(0.001, 1, 9).astype(np.float32)
        excused = np.repeat(random.random((9, 1)) < 0.1, 10, axis=1)
        if only is not None:
            truth, cls = truth[cls == only], cls[cls == only]
            mine = found_cls == only
            found, found_cls, conf, excused = found[mine], found_cls[mine], conf[mine], excused[mine]
        zeros = np.zeros(len(found), int), np.zeros(len(truth), int)
        tp = match_detections(found, conf, found_cls, zeros[0], truth, cls, zeros[1]) >= 0
        metrics.update(
            tp=tp, conf=conf, pred_cls=found_cls, pred_img=zeros[0], target_cls=cls, target_img=zeros[1],
            image_files=[f"ü{offset + image}.jpg"], pred_box=found, target_box=truth, excused=excused & ~tp,
        )  # fmt: skip
    metrics.process()
    return metrics


def test_all_of_it_comes_back(tmp_path: Path) -> None:
    before = validation(0)
    kept = read_epoch(write_epoch(tmp_path / "new", 3, before))
    assert (kept.complete, kept.exact_from) == (True, 0.0)
    after = kept.metrics
    assert (after.names, after.image_files, after.results_dict) == (NAMES, before.image_files, before.results_dict)
    assert before.stats.keys() == after.stats.keys()
    for key, values in before.stats.items():
        assert values.dtype == after.stats[key].dtype, key
        np.testing.assert_array_equal(values, after.stats[key], err_msg=key)
    for name in ("f1", "ap_small", "ap_large", "recall_at_p90", "map75"):
        np.testing.assert_equal(metric_named(name)(before), metric_named(name)(after))
    assert not list((tmp_path / "new").glob("*.tmp"))


def test_a_part_of_the_classes_is_measured_as_if_there_were_no_others(tmp_path: Path) -> None:
    path = write_epoch(tmp_path, 1, validation(1))
    part, alone = read_epoch(path, [2]).metrics, validation(1, only=2)
    assert part.results_dict == alone.results_dict and part.names == NAMES
    assert part.ap_class_index.tolist() == [2] and 0.05 < part.results_dict["metrics/mAP50(B)"] < 1
    assert read_epoch(path, []).metrics.results_dict["metrics/mAP50(B)"] == 0


def test_only_the_highest_scores_are_kept_of_too_many(tmp_path: Path) -> None:
    before = validation(2)
    path = write_epoch(tmp_path, 1, before, most=100)
    kept = read_epoch(path)
    conf = kept.metrics.stats["conf"]
    assert len(conf) == 100 and not kept.complete
    assert kept.exact_from == conf.min() == np.sort(before.stats["conf"])[-100]
    shown = metric_named("f1_at_conf90")
    assert float(conf.min()) < 0.9
    assert shown(kept.metrics) == shown(before), "what counts higher scores alone is exact"
    large = write_epoch(tmp_path, 2, validation(3, images=700), most=5_000)
    assert large.stat().st_size < 5_000 * 30, "bytes of a detection"


def test_the_truth_is_written_once_and_that_of_other_data_beside_it(tmp_path: Path) -> None:
    first = write_epoch(tmp_path, 1, validation(4))
    written = (tmp_path / "truth.npz").stat().st_mtime_ns
    write_epoch(tmp_path, 2, validation(4))
    assert [path.name for path in tmp_path.glob("truth*")] == ["truth.npz"]
    assert (tmp_path / "truth.npz").stat().st_mtime_ns == written
    other = validation(5, offset=100)
    write_epoch(tmp_path, 10, other)
    assert len(list(tmp_path.glob("truth*"))) == 2
    assert list(epochs_in(tmp_path)) == [1, 2, 10], "in order of their numbers"
    assert read_epoch(epochs_in(tmp_path)[10]).metrics.image_files == other.image_files
    assert read_epoch(first).metrics.results_dict == validation(4).results_dict


@pytest.mark.parametrize("damage", ["half", "text", "gone"])
def test_a_damaged_file_is_named(tmp_path: Path, damage: str) -> None:
    path = write_epoch(tmp_path, 1, validation(6, images=3))
    if damage == "half":
        path.write_bytes(path.read_bytes()[:200])
    elif damage == "text":
        path.write_text("no arrays")
    else:
        (tmp_path / "truth.npz").unlink()
    with pytest.raises(ValueError, match=r"(epoch1|truth)\.npz cannot be read"):
        read_epoch(path)


def test_a_run_that_found_nothing_is_kept_too(tmp_path: Path) -> None:
    metrics, none = DetMetrics(NAMES), np.zeros(0, int)
    metrics.update(
        tp=np.zeros((0, 10), bool), conf=np.zeros(0), pred_cls=none, pred_img=none, target_cls=none, target_img=none,
        image_files=["a.jpg"],
    )  # fmt: skip
    metrics.process()
    kept = read_epoch(write_epoch(tmp_path, 1, metrics))
    assert kept.complete and kept.metrics.image_files == ["a.jpg"]
