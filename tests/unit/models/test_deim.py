"""DEIM's networks: counts, keys and what differs from those that they are made of."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest
import torch

from eyas.losses import FineCriterion, SetCriterion
from eyas.models.catalog import MODELS, build_detector, detector_class, model_table
from eyas.models.deim.model import DEIMFineNet, DEIMSetNet
from eyas.models.detector import Detector
from eyas.models.rtdetr.keys import is_ignored, rename

# Of the training form with 80 classes (spec detr 2.1, 3.4); those on D-FINE are listed with two constants.
COUNTS = {
    "deim-rtdetrv2-r18": 20_183_440,
    "deim-rtdetrv2-r50m": 33_198_864,
    "deim-rtdetrv2-r50": 42_943_596,
    "deim-rtdetrv2-r101": 76_660_716,
    "deim-dfine-n": 3_782_693 - 2,
}
FILES = {name: f"de_rt_{name.split('-')[2]}" for name in COUNTS if "rtdetr" in name}
FILES |= {f"deim-dfine-{size}": f"de_{size}" for size in "nsmlx"}
KEY_LISTS = Path(__file__).resolve().parents[4] / "shared" / "spec" / "detr-keys"
needs_keys = pytest.mark.skipif(not KEY_LISTS.is_dir(), reason="no key lists beside the repository")


@cache
def on_meta(name: str) -> Detector:
    with torch.device("meta"):
        return build_detector(name, verbose=False)


@pytest.mark.parametrize("name", COUNTS)
def test_parameters_are_exact(name: str) -> None:
    assert sum(p.numel() for p in on_meta(name).parameters()) == COUNTS[name]
    assert all(p.requires_grad for p in on_meta(name).parameters()), "nothing is frozen"


@needs_keys
@pytest.mark.parametrize("name", FILES)
def test_keys_are_those_of_the_authors(name: str) -> None:
    lines = (KEY_LISTS / f"keys_{FILES[name]}.txt").read_text().splitlines()
    listed = {key: ast.literal_eval(shape) for key, shape in (line.split("\t") for line in lines if line)}
    own = {key: tuple(value.shape) for key, value in on_meta(name).state_dict().items()}
    assert {k: s for k, s in own.items() if not is_ignored(k)} == {
        k: s for k, s in rename(listed).items() if not is_ignored(k)
    }


def test_what_differs_from_the_networks_that_they_are_made_of() -> None:
    names = [name for name in MODELS if name.startswith("deim-")]
    assert len(names) == 11 and {detector_class(model_table(name)) for name in names} == {DEIMFineNet, DEIMSetNet}
    for name in names:
        table = model_table(name)
        assert (table["act"], table["loss"], table["frozen_norms"]) == ("silu", "matchability", False)
        assert Path(table["yaml_file"]).stem == name
    assert model_table("deim-rtdetrv2-r18")["lr_ratio"] == 1.0 and model_table("deim-dfine-l")["lr_ratio"] == 0.05
    fine, plain = build_detector("deim-tiny", verbose=False), on_meta("deim-rtdetrv2-r18")
    fine.gains = {"box": 1.0, "cls": 3.0, "dfl": 4.0}
    criterion = fine.init_criterion()
    assert type(criterion) is FineCriterion and criterion.matchability == 1.5
    assert criterion.gains == {"giou": 1.0, "cls": 3.0, "l1": 4.0, "fgl": 0.15, "ddf": 1.5}
    assert type(plain.init_criterion()) is SetCriterion and plain.init_criterion().matchability == 1.5


@pytest.mark.parametrize("name", COUNTS)
def test_the_page_of_families_says_so(name: str) -> None:
    page = (Path(__file__).resolve().parents[3] / "docs" / "families.md").read_text(encoding="utf-8")
    rows = [line.split("|") for line in page.splitlines() if line.startswith("|")]
    (row,) = [cells for cells in rows if f"`{name}`" in cells[1] and cells[2].strip()[:1].isdigit()]
    assert row[2].strip() == f"{COUNTS[name]:,}"
