"""What all tests share: a cache of their own, the small embedded data set, and a network small enough to train."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

# Threads that wait for each other on busy cores cost more than they bring on networks this small.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.pop("COLUMNS", None)  # tables would be as wide as the terminal that the tests are started from


# What takes longest begins first, so that no process is left alone with it at the end; the rest follows as collected.
LONGEST = ("test_combinations.py", "test_every_option.py", "test_docs.py", "test_rehearse.py", "test_resume.py")
APART = ("test_every_block_of_the_page_runs", "test_every_example_runs")  # these share nothing with each other


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Keep the tests of a file in one process, where they share its trainings, but for those that share nothing."""
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return group_of(nodeid)

    return Scheduling(config, log)


def group_of(nodeid: str) -> str:
    """Return what the tests of one process have in common."""
    file, _, test = nodeid.partition("::")
    return nodeid if test.startswith(APART) and "[quickstart" not in test else file  # another test reads its files


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Keep the tests out of the user's cache."""
    before = os.environ.get("EYAS_CACHE")
    folder = tmp_path_factory.mktemp("cache")
    os.environ["EYAS_CACHE"] = str(folder)
    yield folder
    if before is None:
        del os.environ["EYAS_CACHE"]
    else:
        os.environ["EYAS_CACHE"] = before


@pytest.fixture
def forked() -> Iterator[None]:
    """New interpreters are forks of this process, as long as the test lasts: see ``tests/helpers/forked.py``."""
    from forked import forked_interpreters

    with forked_interpreters():
        yield


@pytest.fixture(scope="session")
def digits_tiny(own_cache: Path) -> Path:
    """YAML of the embedded data set, 64 + 16 scenes."""
    from eyas.data.digits import ensure_digits

    return ensure_digits("tiny")


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """YAML of a YOLO26 for tests, see ``small_yolo.table``."""
    import small_yolo

    path = tmp_path_factory.mktemp("model") / "tiny.yaml"
    path.write_text(yaml.safe_dump(small_yolo.table()))
    return path


@pytest.fixture(scope="session")
def short_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """YAML of a YOLO26 of nine rows, for tests of what happens around a network: see ``small_yolo.few_layers``."""
    import small_yolo

    path = tmp_path_factory.mktemp("model") / "short.yaml"
    path.write_text(yaml.safe_dump(small_yolo.few_layers()))
    return path


@pytest.fixture(scope="session")
def tiny_rtdetr(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """YAML of a numbered RT-DETR of five convolutions and two decoder layers."""
    backbone = [[-1, 1, "Conv", [width, 3, 2]] for width in (8, 8, 16, 16, 16)]
    decoder = [[2, 3, 5], 1, "RTDETRDecoder", ["nc", 16, 30, 2, 2, 2, 32]]
    path = tmp_path_factory.mktemp("model") / "tiny-rtdetr.yaml"
    path.write_text(yaml.safe_dump({"nc": 10, "backbone": backbone, "head": [[-1, 1, "Conv", [16, 1, 1]], decoder]}))
    return path
