"""Folders and systems that ``ultralytics.utils`` names."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path

import eyas
from eyas.data.cache import cache_root

ROOT = Path(eyas.__file__).parent
"""Folder of the library that does the work; it holds code only."""
RUNS_DIR = Path("runs")
LINUX, MACOS, WINDOWS = sys.platform.startswith("linux"), sys.platform == "darwin", sys.platform == "win32"


PYTHON_VERSION = platform.python_version()
NUM_THREADS = min(8, max(1, (os.cpu_count() or 1) - 1))
"""Threads that reading labels may use."""


def datasets_dir() -> Path:
    """Return where data sets are downloaded to."""
    return cache_root() / "datasets"


def tests_running() -> bool:
    """Whether this is a test of pytest."""
    return "PYTEST_CURRENT_TEST" in os.environ
