"""What families say of themselves, and what the registry refuses; a family that works is in tests/loop."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest

import eyas
from eyas.families import Family, families, family_of, register
from eyas.models import MODELS, DetectionModel, Detector, RTDETRDetectionModel, detector_class, model_table
from eyas.models.catalog import published_weights, register_detector, registered_detectors
from eyas.models.table import Tables
from eyas.train import DetectionTrainer, RTDETRTrainer

SOURCE = Path(eyas.__file__).parent
# Modules of one family, and who may import them: the family itself, its entry in the registries, and public names.
NAMES = ("yolo26", "rtdetr", "dfine", "deim", "dino")
OWN = tuple(f"eyas.{room}.{name}" for room in ("models", "recipes", "train") for name in NAMES)
ALLOWED = (
    *(room.format(name) for room in ("families/{}.py", "models/{}/", "train/{}.py", "recipes/{}.py") for name in NAMES),
    "models/detection.py", "models/catalog.py", "models/__init__.py", "recipes/__init__.py", "train/__init__.py",
)  # fmt: skip


class Other(Detector):
    family: ClassVar[str] = "other"
    arch: ClassVar[str] = "other"


class OtherTrainer(DetectionTrainer):
    family = "other"


def test_every_model_that_has_a_name_belongs_to_a_family_that_has_its_parts() -> None:
    known = families()
    assert tuple(known) == NAMES
    assert [name for family in known.values() for name in family.tables] == list(MODELS)
    assert {name for family in known.values() for name in family.published} == set(published_weights())
    for name in MODELS:
        table = model_table(name)
        family = family_of(table)
        assert detector_class(table) in family.detectors
        assert detector_class(table).stretch is family.stretch is family.trainer.stretch
        assert family.recipe is family.trainer.recipe


def test_a_model_a_class_and_a_table_have_one_family() -> None:
    model = DetectionModel("yolo26n", verbose=False)
    assert family_of(model) is family_of(DetectionModel) is family_of(model.yaml) is families()["yolo26"]
    assert family_of(RTDETRDetectionModel).trainer is RTDETRTrainer
    with pytest.raises(
        ValueError, match=r"no family is called 'other'; there are yolo26, rtdetr, dfine, deim, dino\. Register it"
    ):
        family_of(Other)


def test_parts_that_do_not_belong_together_are_refused() -> None:
    with pytest.raises(ValueError, match="DetectionModel.family is 'yolo26', in the family 'other'"):
        Family("other", detectors=(Other, DetectionModel), trainer=OtherTrainer)
    with pytest.raises(ValueError, match="RTDETRTrainer.family is 'rtdetr', in the family 'other'"):
        Family("other", detectors=(), trainer=RTDETRTrainer)

    class Stretched(Other):
        stretch: ClassVar[bool] = True

    with pytest.raises(ValueError, match="Stretched.stretch is True, and OtherTrainer.stretch False"):
        Family("other", detectors=(Stretched,), trainer=OtherTrainer)


def test_what_stock_families_have_cannot_be_taken_from_them() -> None:
    class SameName(Other):
        tables: ClassVar[Tables] = {"other-s": lambda: {"arch": "other"}, "yolo26n": lambda: {"arch": "other"}}

    class SameTable(Other):
        tables: ClassVar[Tables] = {"other-s": lambda: {"backbone": [], "head": [[-1, 1, "Detect", ["nc"]]]}}

    class NotStock(DetectionTrainer):
        pass

    with pytest.raises(ValueError, match="a stock family is called 'yolo26'"):
        register(Family("yolo26", detectors=(DetectionModel,), trainer=NotStock))
    with pytest.raises(ValueError, match="SameName has a model 'yolo26n', which DetectionModel has or builds already"):
        register(Family("other", detectors=(SameName,), trainer=OtherTrainer))
    with pytest.raises(ValueError, match="SameTable has a model 'other-s', which DetectionModel has or builds already"):
        register_detector(SameTable)
    assert not registered_detectors() and "other-s" not in MODELS and "other" not in families()


def test_a_class_of_the_users_without_a_family_is_trained_like_most() -> None:
    class Nameless(Other):
        family: ClassVar[str] = ""

    assert family_of(Nameless) is families()["yolo26"]


def imports(path: Path) -> Iterator[str]:
    """Modules, and names in them, that a file imports; those for type checking too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_only_a_family_itself_imports_its_modules() -> None:
    found = {
        f"{path.relative_to(SOURCE).as_posix()} imports {name}"
        for path in SOURCE.rglob("*.py")
        for name in imports(path)
        if f"{name}.".startswith(tuple(f"{own}." for own in OWN))
    }
    assert any(entry.startswith("families/rtdetr.py") for entry in found), "this test sees nothing"
    assert sorted(entry for entry in found if not entry.startswith(ALLOWED)) == []


def test_how_images_are_fitted_tells_no_families_apart() -> None:
    """``stretch`` is a fact of geometry: compared nowhere but where a family's own parts must agree."""
    compared = {
        path.relative_to(SOURCE).as_posix()
        for path in SOURCE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Compare) and "stretch" in ast.unparse(node)
    }
    assert compared == {"families/family.py"}
