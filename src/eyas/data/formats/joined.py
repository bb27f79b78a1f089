"""Several annotation files or folders as one split."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from eyas.data.files import FileStat
from eyas.data.formats.base import Labels, LabelSource
from eyas.data.image_header import ImageHeader
from eyas.data.report import Problem, lost_kind

IN_SEVERAL = lost_kind("image in several sources")


class Joined(LabelSource):
    """The images of several sources.

    Raises:
        ValueError: their classes differ.
    """

    def __init__(self, sources: Sequence[LabelSource]) -> None:
        self.sources = list(sources)
        self.names = self.sources[0].names
        for source in self.sources:
            if source.names != self.names:
                raise ValueError(
                    f"{self.sources[0]} has the classes {self.names}, {source} has {source.names}. Add `names` to the "
                    "description, to which both are matched."
                )
        self.stateless = all(source.stateless for source in self.sources)
        self._source_of: dict[str, LabelSource] = {}
        self._twice: list[Problem] = []

    def __str__(self) -> str:
        return ", ".join(map(str, self.sources))

    @property
    def identity(self) -> list[object]:
        return ["joined", 1, [source.identity for source in self.sources]]

    def images(self) -> list[tuple[str, FileStat]]:
        self._source_of, self._twice = {}, []
        found: dict[str, FileStat] = {}
        for source in self.sources:
            for path, stat in source.images():
                if path in found:
                    message = f"{source} names it too; the labels of {self._source_of[path]} are used"
                    self._twice.append(Problem(path, 0, IN_SEVERAL, message))
                    continue
                found[path], self._source_of[path] = stat, source
        return sorted(found.items())

    def label_stats(self, images: Sequence[str]) -> list[FileStat]:
        stats: dict[str, FileStat] = {}
        for source in self.sources:
            own = [image for image in images if self._source_of[image] is source]
            stats |= zip(own, source.label_stats(own), strict=True)
        return [stats[image] for image in images]

    def watched(self) -> list[str] | None:
        watched = [source.watched() for source in self.sources]
        return None if None in watched else sorted({place for places in watched for place in places or ()})

    def label_file(self, image: str) -> str:
        if not self._source_of:
            self.images()
        return self._source_of[image].label_file(image)

    def labels(self, image: str, stat: FileStat, header: ImageHeader) -> Labels:
        return self._source_of[image].labels(image, stat, header)

    def problems(self) -> list[Problem]:
        return [*self._twice, *(problem for source in self.sources for problem in source.problems())]

    def unused(self) -> Counter[str]:
        return sum((source.unused() for source in self.sources), Counter[str]())

    def unused_names(self) -> dict[str, list[str]]:
        names: dict[str, list[str]] = {}
        for source in self.sources:
            for why, first in source.unused_names().items():
                names.setdefault(why, []).extend(first)
        return names
