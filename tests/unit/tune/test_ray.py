"""The adapters for Ray, without a cluster: what they hand to Ray, and what a worker does."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from eyas.config import OptionError
from eyas.tune.ray import RayReport, continued, needed, torch_trainer, tuner
from eyas.tune.space import Choice, Range
from small_run import SmallRun

OPTIONS = {"model": "yolo26n", "data": "digits", "imgsz": 64}


@pytest.mark.parametrize("part", ["train", "tune"])
def test_without_ray_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch, part: str) -> None:
    monkeypatch.setitem(sys.modules, f"ray.{part}", None)
    with pytest.raises(ImportError, match=r'pip install "eyas\[ray\]"') as caught:
        needed(part)
    assert caught.value.name is None


def test_every_epoch_is_reported_with_what_was_saved(tmp_path: Path) -> None:
    told: list[tuple[dict[str, float], Path | None]] = []
    run = SmallRun(RayReport(lambda numbers, weights: told.append((numbers, weights))), epochs=2)
    run.wdir, run.last = tmp_path, tmp_path / "last.pt"
    run.fit(until=1)
    run.validated({"metrics/mAP50(B)": 0.5}, fitness=0.25)
    run.fire("on_fit_epoch_end")
    run.last.touch()
    run.fire("on_fit_epoch_end")
    numbers, weights = told[0]
    assert (numbers["epoch"], numbers["metrics/mAP50(B)"], numbers["fitness"]) == (1.0, 0.5, 0.25)
    assert numbers["train/square_loss"] > 0
    assert (weights, told[1][1]) == (None, tmp_path)


def test_a_worker_that_starts_again_goes_on_from_what_ray_kept(tmp_path: Path) -> None:
    class Kept:
        def to_directory(self, path: str) -> None:
            Path(path).mkdir(parents=True)
            (Path(path) / "last.pt").touch()

    assert continued(tmp_path / "run", Kept()) == {"resume": str(tmp_path / "run/weights/last.pt")}
    assert (tmp_path / "run" / "weights" / "last.pt").exists()


class Domains:
    """What ray.tune has, as far as a space needs it."""

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments: (name, *arguments)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (Range(0.1, 1.0), ("uniform", 0.1, 1.0)),
        (Range(0.1, 1.0, log=True), ("loguniform", 0.1, 1.0)),
        (Range(0.0, 1.0, step=0.5), ("quniform", 0.0, 1.0, 0.5)),
        (Range(1, 4, whole=True), ("randint", 1, 5)),
        (Range(1, 4, log=True, whole=True), ("lograndint", 1, 5)),
        (Range(64, 128, step=32, whole=True), ("qrandint", 64, 128, 32)),
        (Choice(("SGD", None)), ("choice", ["SGD", None])),
    ],
)
def test_a_space_is_said_in_rays_words(values: Range | Choice, expected: tuple[Any, ...]) -> None:
    from eyas.tune.ray import domain

    assert domain(values, Domains()) == expected  # type: ignore[arg-type]


def test_ray_takes_what_it_is_handed() -> None:
    """The real library: its names, its arguments, and that mistakes are found before anything is started."""
    pytest.importorskip("ray.tune", reason="Ray is not installed", exc_type=ImportError)
    trainer = torch_trainer(OPTIONS, workers=2, use_gpu=False, resources={"CPU": 1})
    assert trainer.scaling_config.num_workers == 2
    with pytest.raises(OptionError, match="did you mean imgsz"):
        torch_trainer(OPTIONS | {"imgzs": 64}, workers=2, use_gpu=False)
    ends = [domain_of({"low": 1, "high": 2}).sample() for _ in range(40)]
    assert set(ends) == {1, 2}, "both ends of a range of whole numbers"
    with pytest.raises(OptionError, match="given, and searched"):
        tuner(OPTIONS, {"imgsz": [64, 96]})


def domain_of(values: dict[str, int]) -> Any:
    from eyas.tune.ray import domain
    from eyas.tune.space import parse_space

    return domain(parse_space({"patience": values})["patience"], needed("tune"))
