from __future__ import annotations

import json
from pathlib import Path

import pytest

from eyas.config import TrainOptions
from eyas.recipes import RTDETR, YOLO26
from eyas.run.plan import Plan
from eyas.train.plan import accumulation, automatic_epochs, epochs_within, make_plan


def plan(
    images: int = 2000,
    batch: int = 16,
    *,
    on_cpu: bool = True,
    sides: int = 1,
    from_scratch: bool = True,
    classes_kept: float = 1.0,
    **options: object,
) -> Plan:
    return make_plan(
        TrainOptions(**options),
        YOLO26,
        images=images,
        batch=batch,
        batches=-(-images // batch),
        device="cpu" if on_cpu else "cuda",
        sides=sides,
        from_scratch=from_scratch,
        classes_kept=classes_kept,
    )


def test_a_cpu_gets_a_budget_of_work_and_a_gpu_the_recipes_length() -> None:
    assert automatic_epochs(YOLO26, 205, 320, 8, on_cpu=True)[0] == int(1100e6 / (205 * 320 * 320))
    assert automatic_epochs(YOLO26, 5000, 96, 8, on_cpu=True)[0] == YOLO26.min_epochs
    assert automatic_epochs(YOLO26, 1000, 128, 8, on_cpu=True) == (20, "auto: about 2500 steps suit a CPU")
    assert automatic_epochs(YOLO26, 118_000, 640, 8, on_cpu=True)[0] == YOLO26.min_epochs
    assert automatic_epochs(YOLO26, 4, 64, 8, on_cpu=True)[0] == YOLO26.epochs
    assert automatic_epochs(YOLO26, 205, 320, 8, on_cpu=False)[0] == YOLO26.epochs


def test_auto_chooses_by_the_length_of_the_run_and_only_what_was_left_open() -> None:
    short, long = plan(epochs=10), plan(118_000, epochs=100, on_cpu=False)
    assert (short.optimizer, short.lr0) == (YOLO26.short.name, YOLO26.short.lr0)
    assert (long.optimizer, long.lr0) == ("MuSGD", 0.01)
    typed = plan(epochs=10, lr0=0.5, momentum=0.7)
    assert (typed.optimizer, typed.lr0, typed.momentum) == ("AdamW", 0.5, 0.7)
    named = plan(epochs=10, optimizer="SGD")
    assert (named.optimizer, named.lr0, named.momentum) == ("SGD", YOLO26.long.lr0, 0.937)


@pytest.mark.parametrize(("batch", "factor"), [(4, 1.0), (16, 1.0), (64, 2.0), (256, 4.0), (512, 4.0)])
def test_the_rate_grows_with_the_root_of_the_images_of_a_step_up_to_a_limit(batch: int, factor: float) -> None:
    assert plan(batch=batch, epochs=10).lr0 == pytest.approx(YOLO26.short.lr0 * factor)
    assert plan(batch=batch, epochs=10, lr0=0.01).lr0 == 0.01


@pytest.mark.parametrize(("parameters", "rate"), [(0.1, 2e-3), (0.75, 2e-3), (6.0, 1e-3), (48.0, 5e-4)])
def test_the_rate_of_a_random_rtdetr_falls_with_the_cube_root_of_its_size(parameters: float, rate: float) -> None:
    given = {"images": 64, "batch": 16, "batches": 4, "parameters": parameters}
    assert make_plan(TrainOptions(), RTDETR, **given).lr0 == pytest.approx(rate)
    for kept in (0.0, 1.0):
        known = make_plan(TrainOptions(), RTDETR, from_scratch=False, classes_kept=kept, **given)
        assert known.lr0 == pytest.approx(1e-4), "whatever the size"
    alone = make_plan(TrainOptions(), RTDETR, from_scratch=False, backbone_alone=True, classes_kept=0.0, **given)
    assert alone.lr0 == pytest.approx(rate), "neck and head are as new as in a random one"


def test_given_weights_are_changed_more_gently() -> None:
    assert plan(epochs=10, from_scratch=False).lr0 == pytest.approx(YOLO26.short.lr0 * YOLO26.fine_tune)
    assert plan(epochs=10, from_scratch=False, classes_kept=0.0).lr0 == pytest.approx(YOLO26.short.lr0)
    assert plan(epochs=10, from_scratch=False, classes_kept=0.5).lr0 == pytest.approx(YOLO26.short.lr0 / 2)
    assert plan(epochs=10, from_scratch=False, lr0=0.01).lr0 == 0.01


def test_a_short_run_keeps_its_steps() -> None:
    """Spec core I.1: accumulation may not eat a run of few batches, and the warm-up may not outlast it."""
    tiny = plan(10, batch=4, epochs=5)
    assert tiny.accumulate == 1 and tiny.updates == 15 and tiny.warmup_batches <= 1
    large = plan(118_000, epochs=100, on_cpu=False)
    assert large.accumulate == 4 and large.warmup_batches == 3 * 7375
    assert accumulation(TrainOptions(nbs=64), YOLO26, 4, 15)[0] == 16, "typed nbs is obeyed"


def test_the_average_and_the_last_epochs_are_fitted_to_the_run() -> None:
    short, long = plan(epochs=12), plan(118_000, epochs=100, on_cpu=False)
    assert short.ema_share == long.ema_share == YOLO26.ema_share
    slow = plan(118_000, epochs=100, on_cpu=False, ema_decay=0.999)
    fast = plan(epochs=12, ema_decay=0.999)
    assert fast.ema_tau == pytest.approx(0.2 * fast.updates) and slow.ema_tau == 2000
    assert (slow.ema_decay, slow.ema_share) == (0.999, None)
    assert (plan(ema_tau=7.0).ema_decay, plan(ema_tau=7.0).ema_tau) == (0.9999, 7.0)
    assert short.close_mosaic == 3 and long.close_mosaic == 10
    assert plan(epochs=12, close_mosaic=0).close_mosaic == 0


def test_the_plan_survives_files_and_says_who_decided(tmp_path: Path) -> None:
    made = plan(epochs=12, lr0=0.001)
    assert Plan.from_dict(json.loads(json.dumps(made.to_dict()))) == made
    made.write(tmp_path / "plan.json")
    assert json.loads((tmp_path / "plan.json").read_text())["lr0"] == 0.001
    reasons = {name: why for name, _, why in made.rows()}
    assert reasons["lr0"] == "call" and reasons["optimizer"].startswith("auto")
    with pytest.raises(AttributeError):
        made.lr0 = 1.0  # type: ignore[misc]


def test_momentum_for_an_optimizer_without_one_is_refused() -> None:
    with pytest.raises(ValueError, match="momentum=0.5 has no effect on Adagrad"):
        plan(epochs=3, optimizer="Adagrad", momentum=0.5)


@pytest.mark.parametrize(
    ("hours", "elapsed", "done", "epochs"),
    [(1.0, 360.0, 1, 10), (1.0, 720.0, 2, 10), (1.0, 700.0, 2, 11), (1.0, 4e3, 3, 3)],
)
def test_epochs_within_a_budget(hours: float, elapsed: float, done: int, epochs: int) -> None:
    """At the pace so far, counted from the start; an epoch that is done stays so."""
    assert epochs_within(hours, elapsed, done) == epochs


def test_long_runs_on_a_gpu_are_compiled() -> None:
    """16,000 images in batches of 16 are 1,000 batches an epoch."""
    assert not plan(16_000, epochs=100).compile
    assert not plan(16_000, epochs=9, on_cpu=False).compile
    long = plan(16_000, epochs=10, on_cpu=False)
    assert long.compile and any(name == "compile" and "10000 batches" in why for name, _, why in long.rows())
    assert not plan(16_000, epochs=10, on_cpu=False, sides=2).compile
    assert plan(compile=True).compile and not plan(16_000, epochs=100, on_cpu=False, compile=False).compile
