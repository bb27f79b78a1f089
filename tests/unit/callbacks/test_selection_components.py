"""What is measured, which epoch is best, when to stop: on a loop of a few lines, so that any history can be played."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from eyas.callbacks.base import Callback
from eyas.callbacks.best import BestBy, best_epoch, file_stem
from eyas.callbacks.criterion import Criterion, known_keys, may_log_more
from eyas.callbacks.metrics import MetricReport, extra_metrics
from eyas.callbacks.stop import EarlyStop
from eyas.config import resolve
from eyas.losses import DenseCriterion
from eyas.metrics import METRIC_KEYS, DetMetrics
from eyas.metrics.extra import F1, RecallAtPrecision
from eyas.train import DetectionTrainer
from small_run import NAMES, SmallRun


def det_metrics():
    metrics = DetMetrics(NAMES)
    metrics.update(
        tp=np.repeat(np.array([True, False, True]).reshape(-1, 1), 10, axis=1),
        conf=np.array([0.9, 0.8, 0.7]),
        pred_cls=np.array([0, 0, 1]),
        pred_img=np.zeros(3, int),
        target_cls=np.array([0, 1, 1]),
        target_img=np.zeros(3, int),
        image_files=["a.jpg"],
        pred_box=np.array([[0, 0, 20, 20], [0, 0, 50, 50], [0, 0, 200, 200]]),
        target_box=np.array([[0, 0, 20, 20], [0, 0, 200, 200], [50, 50, 250, 250]]),
    )
    metrics.process()
    return metrics


class Loop(SmallRun):
    """A run that is only validated; `play` takes one dict of metrics per epoch."""

    def __init__(self, *callbacks, epochs=10, val_every=1):
        super().__init__(*callbacks, epochs=epochs, val_every=val_every)
        self.model.criterion = DenseCriterion(nc=2, strides=[8, 16, 32])
        self.validator.metrics = det_metrics()
        self.meter.update({name: torch.ones(()) for name in self.model.criterion.loss_names})

    def start(self):
        self.fire("on_pretrain_routine_end")
        return self

    def play(self, history):
        for metrics in history:
            if (self.epoch + 1) % self.args.val_every == 0:
                found = dict(metrics)
                fitness = found.pop("fitness", None)
                self.validated(found, fitness)
            if self.stop:
                break
            self.epoch += 1
        return self

    def resumed(self, *callbacks):
        """The same run in a new process."""
        other = Loop(*callbacks, epochs=self.epochs, val_every=self.args.val_every)
        other.resume_from = {"state": {}}
        other.epoch, other.best_fitness, other.best_files = self.epoch, self.best_fitness, dict(self.best_files)
        other.saved = dict(self.saved)
        other.callbacks.load_state_dict(self.callbacks.state_dict())
        return other.start()


@dataclass
class Found:
    """A validator of a user's."""

    metrics: object


def rows(key, values, **others):
    return [{key: value, **others} for value in values]


# -- MetricReport ------------------------------------------------------------------------------------------------------
def boxes_found(metrics):
    return len(metrics.stats["conf"])


def test_names_objects_and_functions_are_reported_together():
    report = MetricReport("f1", RecallAtPrecision(80), boxes_found, lambda metrics: {"a": 1, "mine/b": np.float32(2)})
    loop = Loop(report).start().play([{"x": 0.5}])
    shipped = [*F1().columns(NAMES), "metrics/recall@iou0.5_p80(B)"]
    assert list(loop.metrics) == ["x", *shipped, "metrics/boxes_found", "metrics/a", "mine/b"]
    assert loop.metrics["metrics/boxes_found"] == 3.0 and loop.metrics["mine/b"] == 2.0
    assert report.witness(loop)["metrics"].keys() == loop.metrics.keys() - {"x"}
    assert report.metric_keys(NAMES) == shipped and report.may_add_metrics()
    assert MetricReport("f1").metric_keys(NAMES) == F1().columns(NAMES) and not MetricReport("f1").may_add_metrics()


def test_the_pure_function_needs_no_trainer():
    assert extra_metrics(det_metrics(), "map75") == {"metrics/mAP75(B)": pytest.approx(0.7475, abs=0.01)}


def test_the_option_builds_the_same_report():
    report = MetricReport.from_options(resolve(call={"metrics": "f1,recall_at_p90"}))
    assert report.metrics == MetricReport("f1", "recall_at_p90").metrics
    assert MetricReport.from_options(resolve()) is None


@pytest.mark.parametrize("given", [(), ("f1", "f1"), ("f1", F1()), (F1,), (["f1"],), ("f9",), (3,)])
def test_wrong_arguments_are_refused_at_once(given):
    with pytest.raises(ValueError, match="metric|MetricReport"):
        MetricReport(*given)


def test_a_value_that_is_no_number_names_its_function():
    def words(metrics):
        return "many"

    with pytest.raises(ValueError, match="words returned words='many'"):
        Loop(MetricReport(words)).start().play([{}])


def test_two_reports_of_one_key_are_an_error():
    with pytest.raises(ValueError, match="both report metrics/boxes_found"):
        Loop(MetricReport(boxes_found)).start().play([{"metrics/boxes_found": 1}])


@pytest.mark.parametrize("validator", [print, Found(metrics={}), Found(metrics=DetMetrics(NAMES))])
def test_a_validator_without_matched_detections_is_told_so(validator):
    loop = Loop(MetricReport("f1")).start()
    loop.validator = validator
    with pytest.raises(ValueError, match="validator"):
        loop.play([{}])


# -- which key ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("metric", "key"),
    [
        ("fitness", "fitness"),
        ("map50", "metrics/mAP50(B)"),
        ("map", "metrics/mAP50-95(B)"),
        ("precision", "metrics/precision(B)"),
        ("f1", "metrics/F1@iou0.5_best(B)"),
        ("recall_at_p75", "metrics/recall@iou0.5_p75(B)"),
        ("map/dog", "metrics/mAP50-95(dog)"),
        ("f1/cat", "metrics/F1@iou0.5_best(cat)"),
        ("metrics/mAP50(dog)", "metrics/mAP50(dog)"),
        ("metrics/F1@iou0.5_conf0.3(cat)", "metrics/F1@iou0.5_conf0.3(cat)"),
        ("val/box_loss", "val/box_loss"),
        ("train/cls_loss", "train/cls_loss"),
    ],
)
def test_keys_and_short_names(metric, key):
    criterion = Criterion(metric)
    criterion.resolve(Loop(), "best_by")
    assert criterion.key == key
    assert criterion.mode == ("min" if "loss" in metric else "max")


@pytest.mark.parametrize("component", [BestBy, EarlyStop])
@pytest.mark.parametrize(
    ("metric", "near"),
    [
        ("metrics/mAP50", "metrics/mAP50(B)"),
        ("mAP_50", "metrics/mAP50(B)"),
        ("val/bx_loss", "val/box_loss"),
        ("F1", "f1"),
        ("ap_smal", "ap_small"),
        ("fitnes", "fitness"),
    ],
)
def test_an_unknown_key_is_refused_before_training(component, metric, near):
    with pytest.raises(ValueError, match="no metric") as error:
        Loop(component(metric)).start()
    assert f"Did you mean {near!r}?" in str(error.value)
    assert all(key in str(error.value) for key in METRIC_KEYS)


def test_a_metric_with_a_value_per_class_needs_a_class():
    with pytest.raises(ValueError, match=r"'metrics/mAP50\(cat\)'"):
        Loop(BestBy("ap_per_class")).start()


class AddsMine(Callback):
    def adjust_metrics(self, trainer, metrics):
        return metrics | {"mine": 1.0}


def test_keys_of_a_user_s_callback_are_left_to_the_first_validation():
    loop = Loop(AddsMine(), BestBy("mine")).start().play([{}])
    assert loop.best_files == {"best": 1}
    with pytest.raises(ValueError, match="Did you mean 'mine'"):
        Loop(AddsMine(), BestBy("mime")).start().play([{}])


def test_keys_of_a_user_s_function_are_left_to_the_first_validation():
    Loop(MetricReport(boxes_found), BestBy("metrics/boxes_found")).start().play([{}])


class Validates(DetectionTrainer):
    def validate(self):
        return {"own": 3.0}, None


@pytest.mark.parametrize(("cls", "left"), [(DetectionTrainer, False), (Validates, True)])
def test_keys_of_a_user_s_trainer_are_left_to_the_first_validation(cls, left):
    trainer = cls(overrides={"model": "yolo26n", "data": "digits-tiny", "device": "cpu"})
    trainer.model = Loop().model
    assert may_log_more(trainer, "own") is left


@pytest.mark.parametrize("coco", [False, True])
def test_the_validator_tells_which_keys_it_adds(coco):
    loop = Loop()
    loop.validator.coco = coco
    assert ("coco/AP" in known_keys(loop)) is coco
    loop.validator = print  # a user's own, which does not tell
    assert "coco/AP" not in known_keys(loop)


def test_losses_of_a_criterion_that_does_not_tell_are_left_to_the_first_validation():
    loop = Loop(BestBy("val/strange_loss"))
    loop.model.criterion = print
    assert loop.start().play(rows("val/strange_loss", [3, 1, 2])).best_files == {"best": 2}


def test_a_shipped_metric_is_measured_where_nobody_else_reports_it():
    alone = Loop(BestBy("f1", "map/cat"), EarlyStop("ap_small")).start().play([{}])
    assert set(alone.metrics) == {"metrics/F1@iou0.5_best(B)", "metrics/mAP50-95(cat)", "metrics/AP_small(B)"}
    reported = Loop(MetricReport("f1"), BestBy("f1")).start()
    assert "metrics/F1@iou0.5_best(dog)" in known_keys(reported)
    reported.play([{}])
    assert set(reported.metrics) == set(F1().columns(NAMES))
    assert reported.best_fitness == alone.best_fitness == pytest.approx(det_metrics().box.f1.mean())


# -- BestBy ------------------------------------------------------------------------------------------------------------
def first_best(values, sign):
    """The first index of the largest finite value, from 1; 0 if there is none."""
    best = 0
    for i, value in enumerate(values, 1):
        if math.isfinite(value) and (not best or sign * value > sign * values[best - 1]):
            best = i
    return best


NUMBERS = st.sampled_from([0.0, 0.1, 0.5, 0.5, 1.0, -2.0, math.nan, math.inf])


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(NUMBERS, NUMBERS, NUMBERS), min_size=1, max_size=9), st.integers(0, 9))
def test_best_files_are_those_of_the_uninterrupted_run(values, cut):
    """For any history and any interruption: ties keep the earlier, nan never wins, every criterion for itself."""

    def component():
        return BestBy("val/box_loss", "map", {"metric": "fitness", "mode": "min", "name": "worst"})

    keys = "val/box_loss", "metrics/mAP50-95(B)", "fitness"
    history = [dict(zip(keys, row, strict=True)) for row in values]
    whole = Loop(component()).start().play(history)
    expected = {
        "best": first_best([row[0] for row in values], -1),
        "best_map": first_best([row[1] for row in values], 1),
        "worst": first_best([row[2] for row in values], -1),
    }
    assert {"best_map": 0, "worst": 0} | whole.best_files == expected
    assert best_epoch(dict(enumerate((row[0] for row in values), 1)), "min") == expected["best"]
    cut = min(cut, len(history))
    parts = Loop(component()).start().play(history[:cut]).resumed(component()).play(history[cut:])
    assert parts.best_files == whole.best_files and parts.best_fitness == whole.best_fitness
    assert parts.saved == whole.saved


def test_a_metric_below_the_stock_fitness_still_saves():
    """Trap: best is decided on one scale only, so recall 0.2 beside a fitness of 0.9 wins its own race."""
    loop = Loop(BestBy("recall")).start().play(rows("metrics/recall(B)", [0.1, 0.2, 0.15], fitness=0.9))
    assert loop.best_files == {"best": 2} and loop.best_fitness == 0.2


def test_the_checkpoint_says_which_metric_chose_it():
    loop = Loop(BestBy("map50", {"metric": "val/box_loss", "name": "tight"})).start()
    loop.play([{"metrics/mAP50(B)": 0.4, "val/box_loss": 2.0}, {"metrics/mAP50(B)": 0.3, "val/box_loss": 1.0}])
    assert loop.saved["best"]["best_by"]["best"] == {"metric": "map50", "mode": "max", "value": 0.4, "epoch": 1}
    assert loop.saved["tight"]["best_by"]["tight"] == {
        "metric": "val/box_loss",
        "mode": "min",
        "value": 1.0,
        "epoch": 2,
    }
    assert loop.callbacks.callbacks[0].witness(loop)["best_by"].keys() == {"best", "tight"}


def test_a_function_chooses():
    def balanced(metrics):
        return metrics["metrics/mAP50(B)"] - metrics["train/box_loss"] * metrics["val/box_loss"]

    history = [{"metrics/mAP50(B)": a, "val/box_loss": b} for a, b in ((0.5, 0.4), (0.6, 0.1), (0.7, 0.3))]
    assert Loop(BestBy(balanced)).start().play(history).best_files == {"best": 2}


def test_early_epochs_can_be_left_out():
    loop = Loop(BestBy({"metric": "map", "start": 2}, {"metric": "map50", "start": 1})).start()
    loop.play([{"metrics/mAP50-95(B)": v, "metrics/mAP50(B)": v} for v in (0.9, 0.8, 0.1, 0.2)])
    assert loop.best_files == {"best": 4, "best_map50": 2}
    with pytest.raises(ValueError, match="start=10 leaves no epoch"):
        Loop(BestBy({"metric": "map", "start": 10})).start()


@pytest.mark.parametrize(
    ("criteria", "words"),
    [
        ((), "at least one"),
        (("f1", "map", "map"), "best_map.pt"),
        (({"metric": "f1", "mod": "max"},), "'mode'"),
        (({"mode": "max"},), "names no metric"),
        (({"metric": "f1", "mode": "up"},), "'max' or 'min'"),
        (({"metric": "f1", "name": "x"},), "first criterion"),
        (("f1", {"metric": "map", "name": "last"}), "name='last'"),
        (("f1", {"metric": "map", "name": "../x"}), "name='../x'"),
        (({"metric": "f1", "start": -1},), "start=-1"),
        ((3,), "name of one"),
    ],
)
def test_wrong_criteria_are_refused_at_once(criteria, words):
    with pytest.raises(ValueError, match=words):
        BestBy(*criteria)


@pytest.mark.parametrize(
    ("metric", "stem"),
    [
        ("metrics/mAP50(B)", "best_mAP50"),
        ("f1", "best_f1"),
        ("map/a b.c", "best_map_a_b_c"),
        ("val/box_loss", "best_val_box_loss"),
        ("metrics/F1@iou0.5_best(B)", "best_F1_iou0_5_best"),
    ],
)
def test_file_names(metric, stem):
    assert file_stem(metric) == stem


def test_a_run_goes_on_by_the_same_criteria_only():
    loop = Loop(BestBy("map")).start().play(rows("metrics/mAP50-95(B)", [0.1]))
    with pytest.raises(ValueError, match="started with map"):
        loop.resumed(BestBy("f1"))
    fresh = Loop().start().play(rows("fitness", [0.1]))
    with pytest.raises(ValueError, match="without best_by"):
        fresh.resumed(BestBy("f1"))


def test_best_by_as_an_option():
    options = resolve(call={"best_by": ["map50", {"metric": "f1", "mode": "max"}]})
    stems = {k.stem: str(k.criterion) for k in BestBy.from_options(options).keepers}
    assert stems == {"best": "map50 (max)", "best_f1": "f1 (max)"}
    assert [k.stem for k in BestBy.from_options(resolve(call={"best_by": "f1"})).keepers] == ["best"]
    assert BestBy.from_options(resolve()) is None


# -- EarlyStop ---------------------------------------------------------------------------------------------------------
def stopped_by_hand(values, patience, val_every):
    """The rule in words: the last epoch that is trained when the best lies `patience` epochs behind at a validation;
    before there is a best, nobody waits."""
    best, best_epoch = None, 0
    for epoch, value in enumerate(values, 1):
        if epoch % val_every:
            continue
        if math.isfinite(value) and (best is None or value > best):
            best, best_epoch = value, epoch
        if patience and best is not None and epoch - best_epoch >= patience:
            return epoch
    return None


@settings(max_examples=150, deadline=None)
@given(st.lists(NUMBERS, min_size=1, max_size=12), st.integers(0, 5), st.integers(1, 3), st.integers(0, 12))
def test_stops_where_the_rule_says_also_when_resumed(values, patience, val_every, cut):
    history = rows("fitness", values)
    whole = Loop(EarlyStop(patience=patience), val_every=val_every).start().play(history)
    expected = stopped_by_hand(values, patience, val_every)
    assert (whole.epoch + 1 if whole.stop else None) == expected
    first = Loop(EarlyStop(patience=patience), val_every=val_every).start().play(history[:cut])
    if not first.stop:
        rest = first.resumed(EarlyStop(patience=patience)).play(history[cut:])
        assert (rest.stop, rest.epoch) == (whole.stop, whole.epoch)


def test_small_gains_and_first_epochs_can_be_left_out():
    gains = rows("metrics/mAP50(B)", [0.5, 0.505, 0.51, 0.515, 0.52])
    assert Loop(EarlyStop("map50", patience=2)).start().play(gains).stop is False
    assert Loop(EarlyStop("map50", patience=2, min_delta=0.01)).start().play(gains).epoch == 2
    spike = rows("metrics/mAP50(B)", [0.9, 0.1, 0.2, 0.3, 0.25, 0.2])
    assert Loop(EarlyStop("map50", patience=2)).start().play(spike).epoch == 2
    assert Loop(EarlyStop("map50", patience=2, start=1)).start().play(spike).epoch == 5


def test_waiting_starts_with_the_first_epoch_that_may_be_best():
    history = rows("fitness", [0.9] * 30, **{"metrics/mAP50(B)": 0.5})
    loop = Loop(BestBy({"metric": "map50", "start": 20}), EarlyStop(patience=5), epochs=30).start().play(history)
    assert loop.stop and loop.epoch + 1 == 26 and loop.best_files == {"best": 21}


@pytest.mark.parametrize(
    ("metric", "mode"),
    [
        *[
            (key, "min")
            for key in ("val/box_loss", "train/giou", "loss", "my_loss", "metrics/my_loss(B)", "my_loss/cat")
        ],
        *[
            (key, "max")
            for key in ("map/glossy_leaf", "map/weight_loss", "f1/loss", "metrics/mAP50(hair_loss)", "gloss1")
        ],
        *[(key, "max") for key in ("fitness", "recall_at_p90", "metrics/F1", "flossing")],
    ],
)
def test_only_losses_are_better_when_smaller(metric, mode):
    assert Criterion(metric).mode == mode


def test_a_loss_stops_when_it_rises():
    loop = Loop(EarlyStop("val/cls_loss", patience=1)).start().play(rows("val/cls_loss", [2.0, 1.0, 1.5, 0.5]))
    assert loop.stop and loop.epoch == 2


def test_fitness_is_what_chooses_the_best():
    """With another criterion for the best epoch, patience follows that one."""
    history = [{"fitness": f, "val/box_loss": b} for f, b in ((0.1, 1.0), (0.2, 2.0), (0.3, 3.0))]
    loop = Loop(BestBy("val/box_loss"), EarlyStop(patience=2)).start().play(history)
    assert loop.stop and loop.best_files == {"best": 1} and loop.best_fitness == -1.0


def test_stop_as_an_option():
    stock = EarlyStop.from_options(resolve(call={"patience": 7}))
    assert (str(stock.criterion), stock.patience) == ("fitness (max)", 7)
    rule = EarlyStop.from_options(resolve(call={"stop": {"metric": "val/box_loss", "min_delta": 0.1, "start": 3}}))
    assert (rule.criterion.mode, rule.patience, rule.min_delta, rule.start) == ("min", 100, 0.1, 3)
    with pytest.raises(ValueError, match="'patience'"):
        EarlyStop.from_options(resolve(call={"stop": {"metric": "f1", "patienc": 3}}))
    with pytest.raises(ValueError, match="patience"):
        EarlyStop.from_options(resolve(call={"stop": {"patience": 3}, "patience": 5}))


@pytest.mark.parametrize(
    "wrong",
    [{"patience": -1}, {"patience": 1.5}, {"min_delta": -1}, {"min_delta": math.nan}, {"start": True}, {"mode": "x"}],
)
def test_wrong_rules_are_refused_at_once(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        EarlyStop(**wrong)


def test_witness_after_a_validation_only():
    loop = Loop(EarlyStop(patience=3)).start()
    component = loop.callbacks.callbacks[0]
    assert component.witness(loop) == {}
    loop.play(rows("fitness", [math.nan]))
    assert component.witness(loop)["patience"] == 3 and component.witness(loop)["stop"]["value"] is None
