"""What a user does after training: load, validate, predict, look; from Python and from the shell."""

from __future__ import annotations

import math
import random
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import yaml

from eyas import YOLO
from eyas.checkpoint import load_checkpoint
from eyas.cli import main


@pytest.fixture(scope="module")
def trained(digits_tiny: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``best.pt`` of a short training."""
    yolo = YOLO(tiny_model)
    runs = tmp_path_factory.mktemp("trained")
    result = yolo.train(
        data=str(digits_tiny),
        imgsz=64,
        epochs=3,
        workers=0,
        plots=False,
        verbose=False,
        device="cpu",
        project=str(runs),
    )
    return result.best


def test_val_remembers_data_size_and_batch_but_typed_values_win(trained: Path, tmp_path: Path) -> None:
    yolo = YOLO(trained)
    assert yolo.remembered("val")["imgsz"] == 64 and "digits" in yolo.remembered("val")["data"]
    assert yolo.remembered("val")["batch"] == 16, "twice the 8 of a step on a CPU"
    assert not {"data", "batch"} & yolo.remembered("predict").keys()
    metrics = yolo.val(imgsz=96, split="train", workers=0, plots=False, verbose=False, project=str(tmp_path))
    assert len(metrics.image_files) == 64


def test_a_relative_path_to_the_data_is_meant_from_where_the_training_began(
    digits_tiny: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    """Another data set of the same name lies where the model is used later."""
    mine, other = tmp_path / "mine", tmp_path / "other"
    for folder in (mine, other):
        shutil.copytree(digits_tiny.parent, folder)
        described = yaml.safe_load((folder / digits_tiny.name).read_text())
        described["names"] = [f"{folder.name} {i}" for i in range(10)]
        (folder / "data.yaml").write_text(yaml.safe_dump(described))
    monkeypatch.chdir(mine)
    quiet = {"workers": 0, "plots": False, "verbose": False, "device": "cpu"}
    result = YOLO(tiny_model).train(data="data.yaml", imgsz=32, epochs=1, fraction=0.25, **quiet)
    assert YOLO(result.best).remembered("val")["data"] == "data.yaml"
    last, best = result.last.absolute(), YOLO(result.best.absolute())
    monkeypatch.chdir(other)
    metrics = best.val(**quiet)
    assert metrics.names == best.names and Path(metrics.image_files[0]).is_relative_to(mine)
    exported = YOLO(best.export("torchscript", verify=False))
    assert exported.remembered("val")["data"] == str(mine / "data.yaml")
    assert str(tmp_path) not in str(load_checkpoint(last)["began_in"]), "a file tells nothing of the disk"
    assert "is it the data that was meant" not in caplog.text
    best.val(data="data.yaml", **quiet)
    assert "class 0 is 'mine 0' to the model and 'other 0' in the data, and 9 more differ" in caplog.text
    again = YOLO(last).train(resume=True, epochs=2)
    assert len(again.history) == 2 and "moved" not in caplog.text


def test_both_heads_are_measured(trained: Path, tmp_path: Path) -> None:
    with_nms = YOLO(trained).val(nms=True, workers=0, plots=False, verbose=False, project=str(tmp_path))
    assert 0 <= with_nms.box.map50 <= 1


def test_predict_sources_and_results(trained: Path, digits_tiny: Path) -> None:
    from PIL import Image

    yolo = YOLO(trained)
    folder = digits_tiny.parent / "images" / "val"
    files = sorted(folder.iterdir())
    image = cv2.imread(str(files[0]))
    by_file, by_array = yolo.predict(str(files[0]), conf=0.0)[0], yolo.predict(image, conf=0.0)[0]
    by_pil = yolo.predict(Image.fromarray(image[..., ::-1]), conf=0.0)[0]
    assert len(by_file) > 0
    np.testing.assert_allclose(by_file.xyxy, by_array.xyxy)
    np.testing.assert_allclose(by_file.xyxy, by_pil.xyxy)
    assert len(yolo(str(folder))) == len(yolo(str(folder / "*.*"))) == 16
    stream = yolo.predict([image, image], stream=True)
    assert next(iter(stream)).names[7] == "7"
    height, width = image.shape[:2]
    boxes = by_file.xyxy
    assert boxes.dtype == np.float32 and boxes.min() >= 0 and boxes[:, 2].max() <= width and boxes[:, 3].max() <= height
    assert np.all(np.diff(by_file.confidence) <= 0) and by_file.class_id.max() < 10
    assert by_file.plot().shape == image.shape


def test_predict_writes_pictures_only_when_asked(trained: Path, digits_tiny: Path, tmp_path: Path) -> None:
    image = str(next((digits_tiny.parent / "images" / "val").iterdir()))
    yolo = YOLO(trained)
    with pytest.raises(ValueError, match="add save=True"):
        yolo.predict(image, project=str(tmp_path))
    yolo.predict([image, image, cv2.imread(image)], save=True, project=str(tmp_path))
    assert len(list((tmp_path / "predict").glob("*.*"))) == 3, "an array gets a name too"


def test_the_shell_trains_validates_and_predicts(
    tiny_model: Path, digits_tiny: Path, tmp_path: Path, capsys: Any
) -> None:
    runs = f"project={tmp_path}"
    common = ["imgsz=64", "workers=0", "device=cpu", runs]
    assert main(["train", f"model={tiny_model}", f"data={digits_tiny}", "epochs=1", "plots=false", *common]) == 0
    text = capsys.readouterr().out
    assert "1/1" in text and "Best weights" in text and "lr0" in text
    best = tmp_path / "train" / "weights" / "best.pt"
    assert main(["val", f"model={best}", "workers=0", "plots=true", runs]) == 0
    assert "mAP50" in capsys.readouterr().out and (tmp_path / "val" / "confusion_matrix.png").is_file()
    image = next((digits_tiny.parent / "images" / "val").iterdir())
    assert main(["predict", f"model={best}", f"source={image}", "conf=0.0", runs]) == 0
    assert (tmp_path / "predict" / image.name).is_file()


def test_fine_tuning_starts_from_given_weights(trained: Path, digits_tiny: Path, tmp_path: Path) -> None:
    start = load_checkpoint(trained)["model"]["model.0.conv.weight"]
    seen: list[torch.Tensor] = []
    options = {"workers": 0, "plots": False, "verbose": False, "device": "cpu", "project": str(tmp_path)}
    for changes in ({}, {"pretrained": False}):
        yolo = YOLO(trained)
        yolo.add_callback(
            "on_train_start", lambda trainer: seen.append(trainer.model.model[0].conv.weight.detach().clone())
        )
        yolo.train(data=str(digits_tiny), imgsz=64, epochs=1, **options, **changes)
    assert torch.equal(seen[0], start) and not torch.equal(seen[1], start)


def test_weights_brought_by_load_are_trained_on(
    trained: Path, tiny_model: Path, digits_tiny: Path, tmp_path: Path
) -> None:
    seen: list[torch.Tensor] = []
    yolo = YOLO(tiny_model).load(trained)
    yolo.add_callback(
        "on_train_start", lambda trainer: seen.append(trainer.model.model[0].conv.weight.detach().clone())
    )
    options = {"workers": 0, "plots": False, "verbose": False, "device": "cpu", "project": str(tmp_path)}
    result = yolo.train(data=str(digits_tiny), imgsz=64, epochs=1, **options)
    assert torch.equal(seen[0], load_checkpoint(trained)["model"]["model.0.conv.weight"])
    assert result.plan.lr0 < YOLO(tiny_model).trainer_class.recipe.short.lr0, "given weights are changed more gently"


def test_wrong_calls_are_explained(tiny_model: Path, tmp_path: Path) -> None:
    from eyas.train import DetectionTrainer

    yolo = YOLO(tiny_model)
    with pytest.raises(ValueError, match="epochs"):
        yolo.train(data="digits", epochz=3)
    with pytest.raises(TypeError, match="pass the class itself"):
        yolo.train(data="digits", trainer=DetectionTrainer(overrides={"model": str(tiny_model)}))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="on_train_start"):
        yolo.add_callback("on_train_begin", print)
    with pytest.raises(ValueError, match="task"):
        YOLO(tiny_model, task="segment")
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pt"):
        YOLO(tmp_path / "nowhere.pt")


def test_a_callback_sees_the_averaged_weights_of_the_training_and_leaves_it_as_it_is(
    tiny_model: Path, digits_tiny: Path, tmp_path: Path
) -> None:
    """Two trainings, one of them measured at every turn: the same bits; and what is measured is what trains."""
    own = {"workers": 0, "plots": False, "verbose": False, "project": str(tmp_path)}
    options = {**own, "data": str(digits_tiny), "imgsz": 64, "epochs": 2, "batch": 32, "device": "cpu"}
    picture = np.full((64, 64, 3), 200, np.uint8)
    yolo, seen = YOLO(tiny_model), []

    def look(trainer: Any) -> None:
        state = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()  # noqa: NPY002
        modes = [module.training for module in (*trainer.model.modules(), *trainer.ema.ema.modules())]
        assert yolo.model is trainer.ema.ema and yolo.names == trainer.data["names"]
        found = yolo.val(**own)
        assert yolo.predict(picture, conf=0.0)[0].names == yolo.names
        with pytest.raises(ValueError, match="while train"):
            yolo.load("anything.pt")
        with pytest.raises(ValueError, match="runs already"):
            yolo.train()
        assert modes == [module.training for module in (*trainer.model.modules(), *trainer.ema.ema.modules())]
        assert torch.equal(state[0], torch.get_rng_state()) and state[2] == random.getstate()
        assert state[1] == np.random.get_state()[1].tolist()  # noqa: NPY002
        seen.append(found.results_dict["metrics/mAP50-95(B)"] - trainer.metrics.get("metrics/mAP50-95(B)", math.nan))

    start = yolo.model
    yolo.add_callback("on_pretrain_routine_start", lambda trainer: seen.append(yolo.model is start))
    for event in ("on_train_batch_end", "on_val_end"):
        yolo.add_callback(event, look)
    looked_at = yolo.train(**options)
    assert seen[0] is True and len(seen) == 1 + 4 + 2 and seen[3] == seen[6] == 0, "the numbers of its own validation"
    assert yolo.model is not start and yolo.live is None and yolo.load(looked_at.best) is yolo
    alone = YOLO(tiny_model).train(**options)
    one, other = load_checkpoint(looked_at.last), load_checkpoint(alone.last)
    assert all(torch.equal(tensor, other["model"][key]) for key, tensor in one["model"].items())
