"""What a label format has to tell of a split."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from eyas.data.files import FileStat
from eyas.data.image_header import ImageHeader
from eyas.data.report import Problem, lost_kind

NO_USABLE_ROW = "no usable label row"
UNREADABLE = lost_kind("unreadable label file")


class LabelProblem(NamedTuple):
    """One dropped row: 1-based line (0 = the whole file), kind (a few words, counted) and a sentence for people.

    Where it was dropped for its class, `unknown` is the id that is none.
    """

    line: int
    kind: str
    message: str
    unknown: int | None = None


class Ignored(NamedTuple):
    """Areas of one image in which finding an object is no mistake.

    Attributes:
        cls: (m,) float32 class id of which nothing was annotated there, `ANY_CLASS` for all classes.
        boxes: (m, 4) float32 cxcywh normalised by the image size.
    """

    cls: np.ndarray
    boxes: np.ndarray


ANY_CLASS = -1.0
NOTHING_IGNORED = Ignored(np.zeros(0, np.float32), np.zeros((0, 4), np.float32))


class Labels(NamedTuple):
    """Objects of one image: cls (n,) float32 class ids, boxes (n,4) float32 cxcywh normalised by the image size.

    ``ignored`` are areas in which finding something is no mistake, ``lacking`` the ids of classes that were not
    annotated in the whole image.
    """

    cls: np.ndarray
    boxes: np.ndarray
    problems: list[LabelProblem]
    ignored: Ignored = NOTHING_IGNORED
    lacking: tuple[int, ...] = ()

    @property
    def unusable(self) -> bool:
        """Whether there are labels and none of them tells anything: such an image is no background."""
        return bool(self.problems) and not len(self.cls) and not len(self.ignored.cls)


class Numbers(NamedTuple):
    """The numbers that an annotation file gives its images and classes: {path: id} and {class id of `names`: id}."""

    images: Mapping[str, int | str]
    classes: Mapping[int, int | str]


def no_labels(problems: Sequence[LabelProblem] = ()) -> Labels:
    """The labels of a background image."""
    return Labels(np.zeros(0, np.float32), np.zeros((0, 4), np.float32), list(problems))


class LabelSource(ABC):
    """Images of one split and their labels, whatever files they stand in.

    Asked when an index is built, and by every process of a training: `images` and `label_stats` each time, to see
    whether the cached index still holds; `labels` and `problems` only when it does not. So a source of one large file
    reads it when `images` or `labels` first needs it, and may keep what it made of it. `str(source)` names the place.
    """

    names: Mapping[int, str] | None = None
    """{class id: name} that the annotations bring, ids from 0 without a gap; None: the description has them."""

    stateless: bool = False
    """Whether `labels` and `label_file` answer from files and from what `images` and `label_stats` found, and keep
    nothing, not even for `problems`. Labels of many images are then read by several processes; each has a copy."""

    @property
    @abstractmethod
    def identity(self) -> list[object]:
        """Plain values that tell this source from every other: the format's name, the version of its rules (raised
        when they give other labels for the same files), absolute places, settings. Part of the cache's key."""

    @abstractmethod
    def images(self) -> list[tuple[str, FileStat]]:
        """(absolute path, stat) of every image, sorted by path; stat is `ABSENT` for one that is not there.

        Raises:
            ValueError: the place does not exist, or cannot be read.
        """

    @abstractmethod
    def label_stats(self, images: Sequence[str]) -> list[FileStat]:
        """Stat of the file that holds the labels of each image, `ABSENT` where there is none. Part of the cache's
        key: a file of many images is stated for each of them."""

    def watched(self) -> Sequence[str] | None:
        """Folders and files whose times of change tell that an image or label file came, went or got another name.

        Asked after `images` and `label_stats`. While these are as they were, an index of very many images is opened
        without a look at each; an image and the file that `label_file` names for it are then looked at before they are
        used. None: nothing tells, so all files are looked at each time.
        """
        return None

    @abstractmethod
    def label_file(self, image: str) -> str:
        """The file to name for what is wrong with an image's labels, whether it is there or not."""

    @abstractmethod
    def labels(self, image: str, stat: FileStat, header: ImageHeader) -> Labels:
        """Labels of one image, with class ids of `names` (of the description, where that is None).

        Args:
            image: one of `images`.
            stat: what `label_stats` said of it.
            header: size of the image in px, for boxes in px.

        Asked in the order of `images`. Bad rows are dropped and told; nothing in a file raises.
        """

    def labels_of(
        self, images: Sequence[str], stats: Sequence[FileStat], headers: Sequence[ImageHeader]
    ) -> Sequence[Labels]:
        """Labels of each of some images, for a format that reads several in less time than one by one."""
        return list(map(self.labels, images, stats, headers))

    def problems(self) -> list[Problem]:
        """What is wrong with rows that belong to no image. Asked after the labels of all images."""
        return []

    def unused(self) -> Counter[str]:
        """{reason: number} of the files that lie among images and labels and are neither. Asked after `images` and
        `label_stats`, each time."""
        return Counter()

    def unused_names(self) -> dict[str, list[str]]:
        """{reason: paths of the first} of those that `unused` counts. Asked after it."""
        return {}

    def doubt(self, kept: np.ndarray, unknown: Collection[int]) -> str:
        """A sentence for the error that the class ids of a split, taken together, must mean something else; else "".

        Args:
            kept: (T,) float32 classes of all rows that were kept.
            unknown: ids of rows that were dropped for them.
        """
        return ""

    def numbers(self) -> Numbers | None:
        """The numbers that the annotations give images and classes, for who compares results with them; None: they have
        none."""
        return None

    def explain(self, images: Sequence[str]) -> str:
        """A sentence for the error that there are no images, or that none of these has labels. May be empty."""
        return ""
