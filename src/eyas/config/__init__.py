"""Options: their names, types, ranges and help in one place, and the rules by which sources are merged."""

from __future__ import annotations

from eyas.config.errors import OptionError, OptionValueError, UnknownOptionError, UnsupportedOptionError
from eyas.config.options import GROUPS, OptionInfo, TrainOptions, describe, option_names
from eyas.config.resolve import parse_value, read_option_file, resolve, with_defaults
from eyas.config.values import whole_number

__all__ = [
    "GROUPS",
    "OptionError",
    "OptionInfo",
    "OptionValueError",
    "TrainOptions",
    "UnknownOptionError",
    "UnsupportedOptionError",
    "describe",
    "option_names",
    "parse_value",
    "read_option_file",
    "resolve",
    "whole_number",
    "with_defaults",
]
