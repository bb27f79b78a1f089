"""What Eyas says while a test runs, whatever has been done to its logger before."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest


@pytest.fixture
def warnings() -> Iterator[list[str]]:
    """Messages of at least a warning, in order."""
    said: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("eyas")
    logger.addHandler(handler)
    yield said
    logger.removeHandler(handler)
