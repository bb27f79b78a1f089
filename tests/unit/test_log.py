"""Logging setup and plain tables."""

from __future__ import annotations

import io
import logging
import os
import sys

import pytest
from rich.live import Live

from eyas.log import LOGGER, console, print_table, setup_logging, warn


@pytest.fixture(autouse=True)
def _untouched_logger():
    handlers, level = list(LOGGER.handlers), LOGGER.level
    yield
    LOGGER.handlers[:] = handlers
    LOGGER.setLevel(level)


def test_setup_twice_prints_once(capsys):
    setup_logging()
    setup_logging()
    LOGGER.info("[bold]hello[/bold] %s", "x" * 200)
    assert capsys.readouterr().out == f"[bold]hello[/bold] {'x' * 200}\n"


@pytest.mark.parametrize(("verbose", "rank"), [(False, 0), (True, 1)])
def test_quiet_and_other_ranks_show_warnings_only(capsys, verbose, rank):
    setup_logging(verbose, rank)
    LOGGER.info("hidden")
    warn("look here")
    assert capsys.readouterr().out == "Warning: look here\n"


def test_letters_that_the_output_lacks_are_written_as_escapes(monkeypatch):
    """Names of classes have any letters, and a pipe of Windows has few: no training ends at its last table."""
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="cp1252", write_through=True))
    setup_logging()
    LOGGER.info("ä 猫")
    print_table("", ["class", "n"], [["猫", 1]])
    with Live("é 猫", console=console(), auto_refresh=False):
        console().print("ü 猫")
    assert raw.getvalue().decode("cp1252").split() == [
        *("ä", r"\u732b", "class", "n", r"\u732b", "1", "ü", r"\u732b", "é", r"\u732b")
    ]


def test_what_has_lost_its_reader_goes_on(monkeypatch, capsys):
    """As a training whose `| head` or `| tee` has ended."""
    reading, writing = os.pipe()
    os.close(reading)
    setup_logging()
    with os.fdopen(writing, "w", buffering=1) as pipe:
        monkeypatch.setattr(sys, "stdout", pipe)
        for i in range(3):
            LOGGER.info("line %d", i)
    assert capsys.readouterr().err.count("nobody reads the output any more; what is running goes on") == 1


def test_root_logger_is_left_alone():
    before = list(logging.getLogger().handlers)
    setup_logging()
    assert logging.getLogger().handlers == before


def test_print_table_is_plain_when_not_a_terminal(capsys):
    print_table("title", ["a", "b"], [["x" * 150, 1]])
    assert capsys.readouterr().out.splitlines() == ["title", "a" + " " * 151 + "b", "x" * 150 + "  1"]


def test_print_table_fits_where_columns_are_stated(capsys, monkeypatch):
    console.cache_clear()
    monkeypatch.setenv("COLUMNS", "40")
    print_table("", ["name", "n", "why"], [["x" * 20, 1, "y " * 20]], least=("why",))
    console.cache_clear()
    assert capsys.readouterr().out.splitlines() == ["name" + " " * 18 + "n", "x" * 20 + "  1"]


def test_the_console_is_one():
    assert console() is console()
