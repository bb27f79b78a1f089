"""The same labels as YOLO text, COCO and Pascal VOC train to the same bits."""

from __future__ import annotations

import json
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from eyas.data.convert import convert
from eyas.files import digest
from eyas.train import DetectionTrainer
from small_export import DETECT, NAMES, SIZE, own_data, untrained


def test_predictions_carry_the_numbers_of_a_coco_file_so_that_others_can_measure_them(tmp_path: Path) -> None:
    """Its ids have gaps, and its images are numbered otherwise than they are called."""
    yolo = untrained(DETECT, tmp_path)
    convert(own_data(yolo.model, tmp_path / "own"), "coco", tmp_path / "coco", images="link")
    (file,) = (tmp_path / "coco" / "annotations").glob("*val*.json")
    content = json.loads(file.read_text())
    images = {image["id"]: 7000 + 3 * i for i, image in enumerate(content["images"])}
    classes = {category["id"]: 90 - 5 * i for i, category in enumerate(content["categories"])}
    for image in content["images"]:
        image["id"] = images[image["id"]]
    for category in content["categories"]:
        category["id"] = classes[category["id"]]
    for row in content["annotations"]:
        row |= {"image_id": images[row["image_id"]], "category_id": classes[row["category_id"]]}
    file.write_text(json.dumps(content))
    data = {"path": str(tmp_path / "coco"), "val": str(file), "names": NAMES}
    where = tmp_path / "measured"
    yolo.val(data=data, save_json=True, imgsz=SIZE, workers=0, plots=False, verbose=False, save_dir=str(where))
    with redirect_stdout(StringIO()):
        truth = COCO(str(file))
        measured = COCOeval(truth, truth.loadRes(str(where / "predictions.json")), "bbox")
        measured.evaluate()
        measured.accumulate()
        measured.summarize()
    assert measured.stats[:2].tolist() == [1, 1], "the labels are what this model finds"


def test_coco_and_voc_train_bit_for_bit_as_yolo_text_does(options: Any, digits_tiny: Path, tmp_path: Path) -> None:
    trained = {}
    for form in ("yolo", "coco", "voc"):
        data = digits_tiny
        if form != "yolo":
            convert(digits_tiny, form, tmp_path / form, images="link")
            data = tmp_path / form
        trainer = DetectionTrainer(overrides=options(epochs=1, fraction=0.25, data=str(data)))
        trainer.train()
        measured = {name: value for name, value in trainer.metrics.items() if name.startswith("metrics/")}
        trained[form] = digest(trainer.model.state_dict().items()), measured
    assert len(trained["yolo"][1]) >= 4
    assert trained["yolo"] == trained["coco"] == trained["voc"]
