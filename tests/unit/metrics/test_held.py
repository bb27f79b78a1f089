"""Precision, recall and F1 under a condition, against a search through all thresholds."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from eyas.metrics import DetMetrics, metric_named
from eyas.metrics.held import Held, held_named


def metrics_of(seed: int, digits: int = 2) -> DetMetrics:
    random, metrics, count = np.random.default_rng(seed), DetMetrics({0: "cat", 1: "dog", 2: "cow"}), 80
    conf = random.uniform(0, 1, count).round(digits)  # many scores are equal
    cls = random.integers(0, 2, count)
    right = random.random(count) < 0.3 + 0.6 * conf
    metrics.update(
        tp=np.repeat(right[:, None], 10, axis=1), conf=conf, pred_cls=cls, pred_img=np.zeros(count, int),
        target_cls=np.repeat([0, 1, 2], [50, 45, 5]), target_img=np.zeros(100, int), image_files=["a.jpg"],
    )  # fmt: skip
    metrics.process()
    return metrics


def searched(metrics: DetMetrics, wanted: str, held: str, least: Fraction) -> float:
    """The same by trying every score as a threshold, in exact fractions."""
    stats, values = metrics.stats, []
    for cls in range(3):
        true, best = int((stats["target_cls"] == cls).sum()), Fraction(0)
        for threshold in [np.float32(least)] if held == "conf" else sorted(set(stats["conf"].tolist())):
            shown = (stats["pred_cls"] == cls) & (stats["conf"] >= threshold)
            hits, found = int((shown & stats["tp"][:, 0]).sum()), int(shown.sum())
            if not found:
                continue
            of = {
                "precision": Fraction(hits, found),
                "recall": Fraction(hits, true),
                "f1": Fraction(2 * hits, found + true),
            }
            if held == "conf" or of[held] >= least:
                best = max(best, of[wanted])
        values.append(float(best))
    return float(np.mean(values))


@pytest.mark.parametrize("name", ["recall@precision>=0.8", "precision@recall>=0.4", "f1@recall>=.5", "f1@precision>=1",
                                  "precision@conf>=0.55", "recall@conf>=0.55", "F1 @ conf >= 0.25"])  # fmt: skip
def test_a_search_gives_the_same(name: str) -> None:
    held = held_named(name)
    assert held is not None
    for seed in range(6):
        metrics = metrics_of(seed)
        (value,) = held(metrics).values()
        assert value == pytest.approx(searched(metrics, held.wanted, held.held, held.least), abs=1e-12)
        assert 0 <= value < 1


def test_metrics_that_have_names_are_the_same_numbers() -> None:
    metrics = metrics_of(9)
    for name, other in (("recall@precision>=0.9", "recall_at_p90"), ("f1@conf>=0.25", "f1_at_conf25")):
        held = held_named(name)
        assert held is not None
        assert next(iter(held(metrics).values())) == next(iter(metric_named(other)(metrics).values())), name


def test_nineteen_of_twenty_is_a_precision_of_095() -> None:
    held = Held("recall", "precision", Fraction("0.95"))
    tp, conf = np.array([True] * 19 + [False]), np.linspace(0.9, 0.1, 20)
    assert held.of_class(tp, conf, 19) == 1.0
    assert held.of_class(np.append(tp, False), np.append(conf, 0.05), 38) == 0.5
    assert held.of_class(np.zeros(0, bool), np.zeros(0), 3) == 0.0
    assert str(held) == "recall@precision>=0.95" and held.columns({}) == ["metrics/recall@precision>=0.95(B)"]


def test_what_is_no_such_metric_is_left_to_others_or_refused() -> None:
    assert held_named("f1") is None and held_named("recall@speed>=1") is None and held_named("recall@conf<0.5") is None
    for name in ("recall@recall>=0.5", "recall@precision>=1.5"):
        with pytest.raises(ValueError, match="hold another one than is wanted"):
            held_named(name)
