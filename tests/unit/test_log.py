"""Logging setup and plain tables."""

from __future__ import annotations

import logging

import pytest

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
