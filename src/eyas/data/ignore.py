"""What of a data set was not annotated: objects that stand for areas to ignore, and images that lack classes."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from eyas.data.formats.base import ANY_CLASS, Ignored, Labels
from eyas.names import did_you_mean

WHOLE_IMAGE = (0.5, 0.5, 1.0, 1.0)


class IgnoreRules(NamedTuple):
    """What a description and options say of areas to ignore.

    Attributes:
        use: False takes areas that annotations bring as background.
        classes: ids of classes whose objects are areas to ignore.
        annotated: (folder, ids of the classes that were annotated in the images below it); of several, the nearest
            folder counts.
    """

    use: bool = True
    classes: tuple[int, ...] = ()
    annotated: tuple[tuple[str, tuple[int, ...]], ...] = ()

    def lacking(self, image: str, nc: int) -> tuple[int, ...]:
        """Classes that were not annotated in an image."""
        above = [(len(folder), ids) for folder, ids in self.annotated if image.startswith(folder + os.sep)]
        return tuple(c for c in range(nc) if c not in max(above)[1]) if above else ()

    def for_one_class(self, nc: int) -> IgnoreRules:
        """The rules where all nc classes are one: where any was not annotated, it was not."""
        annotated = tuple((folder, (0,) if len(ids) == nc else ()) for folder, ids in self.annotated)
        return self._replace(annotated=annotated)

    def applied(self, labels: Labels, image: str, nc: int) -> Labels:
        """The labels of an image with the objects of `classes` as areas, and what was not annotated as one area."""
        if self == NO_IGNORE_RULES:
            return labels
        if not self.use:
            return labels._replace(ignored=Ignored(labels.ignored.cls[:0], labels.ignored.boxes[:0]), lacking=())
        if self.classes:
            stands = np.isin(labels.cls, self.classes)
            ignored = Ignored(
                np.concatenate((labels.ignored.cls, np.full(stands.sum(), ANY_CLASS, np.float32))),
                np.concatenate((labels.ignored.boxes, labels.boxes[stands])),
            )
            labels = labels._replace(cls=labels.cls[~stands], boxes=labels.boxes[~stands], ignored=ignored)
        return labels._replace(lacking=tuple({*labels.lacking, *self.lacking(image, nc)}))


NO_IGNORE_RULES = IgnoreRules()


def areas(labels: Labels, nc: int) -> tuple[np.ndarray, np.ndarray]:
    """Areas to ignore of an image: boxes (m, 4) float32 cxcywh, and classes (m, ceil(nc / 8)) uint8, a bit for each."""
    boxes, cls = labels.ignored.boxes, labels.ignored.cls
    if not len(cls) and not labels.lacking:  # nearly all images
        return boxes, np.zeros((0, -(-nc // 8)), np.uint8)
    table = (cls[:, None] == np.arange(nc)) | (cls[:, None] == ANY_CLASS)
    if labels.lacking:
        boxes = np.concatenate((boxes, np.array([WHOLE_IMAGE], np.float32)))
        table = np.concatenate((table, np.isin(np.arange(nc), labels.lacking)[None]))
    return boxes, np.packbits(table, axis=1)


def distinct(bits: np.ndarray, nc: int) -> tuple[np.ndarray, np.ndarray]:
    """(S, nc) bool: the different sets among (m, ceil(nc / 8)) uint8 bits, and the row of each (m,) int64."""
    sets, kind = np.unique(bits, axis=0, return_inverse=True)
    return np.unpackbits(sets, axis=1, count=nc).astype(bool), kind.reshape(-1).astype(np.int64)


def read_rules(content: Mapping[str, Any], names: Mapping[int, str], root: Path, where: str) -> IgnoreRules:
    """Read the keys `ignore` and `annotated` of a description.

    Args:
        content: `ignore` is False, True, or a list of classes; `annotated` maps folders to lists of classes.
        names: {class id: name}.
        root: where relative folders start.
        where: for messages.

    Raises:
        ValueError: no such class or folder, or another kind of value.
    """
    given = content.get("ignore")
    ids = () if given is None or isinstance(given, bool) else class_ids(given, names, f"{where}: ignore")
    return IgnoreRules(given is not False, ids, _annotated(content.get("annotated"), names, root, where))


def rules_of(data: Mapping[str, Any]) -> IgnoreRules:
    """Return what a checked description says of areas to ignore; an override may have written it as a YAML has it.

    Raises:
        ValueError: as `read_rules`.
    """
    given = data.get("ignore", NO_IGNORE_RULES)
    if isinstance(given, IgnoreRules):
        return given
    names = class_names(data)
    rules = read_rules(data, names, data.get("path", Path()), "data")
    return rules if names is data["names"] else rules.for_one_class(len(names))


def class_names(data: Mapping[str, Any]) -> Mapping[int, str]:
    """Return the classes that annotations have, of a description in which all may be one."""
    return data.get("class_names", data["names"])


def with_ignored(data: Mapping[str, Any], ignore: bool | Sequence[str | int] | None) -> dict[str, Any]:
    """Return a description in which areas to ignore are what somebody asks for, over what it says itself.

    Args:
        data: as `check_dataset` returns it.
        ignore: None leaves it as it is; False takes areas to ignore as background; True uses those that the data have;
            classes, by name or id, are areas too.

    Raises:
        ValueError: there is no such class.
    """
    rules = rules_of(data)
    if isinstance(ignore, bool):
        rules = rules._replace(use=ignore)
    elif ignore is not None:
        rules = rules._replace(use=True, classes=class_ids(ignore, class_names(data), "ignore"))
    return {**data, "ignore": rules}


def class_ids(classes: object, names: Mapping[int, str], what: str) -> tuple[int, ...]:
    """Return the ids of classes that are given by name or id.

    Raises:
        ValueError: names the one that there is not.
    """
    if not isinstance(classes, Sequence) or isinstance(classes, str):
        raise ValueError(f"{what}={classes!r} must be true, false or a list of classes.")
    by_name = {name: i for i, name in names.items()}
    ids = []
    for given in classes:
        found = by_name.get(str(given), given if given in names and not isinstance(given, bool) else None)
        if found is None:
            raise ValueError(f"{what}: there is no class {given!r}.{did_you_mean(str(given), list(by_name))}")
        ids.append(int(found))
    return tuple(sorted(set(ids)))


def _annotated(
    given: object, names: Mapping[int, str], root: Path, where: str
) -> tuple[tuple[str, tuple[int, ...]], ...]:
    if given is None:
        return ()
    if not isinstance(given, Mapping) or not given:
        raise ValueError(f"{where}: annotated={given!r} must map folders of images to lists of classes.")
    found = []
    for folder, classes in given.items():
        path = root / str(folder)
        if not path.is_dir():
            raise ValueError(f"{where}: annotated: {path} is no folder.")
        found.append((str(path.resolve()), class_ids(classes, names, f"{where}: annotated: {folder}")))
    return tuple(sorted(found))
