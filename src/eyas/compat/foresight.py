"""What a script will ask of its models that Eyas lacks, seen in its code before it runs: not after all epochs.

Only what is plain in the code is said: a model is what ``YOLO(...)`` was assigned to, an argument counts where its
value is written out. Code that cannot run (``if False:``) or that the script itself guards (``try:`` with a handler,
``if hasattr(...)``) is left alone. Nothing is refused here: whether a line is reached, only running it tells.
"""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import Any

from eyas.compat.arguments import Arguments
from eyas.compat.model import LACKING, check_format, export_arguments
from eyas.compat.ultralytics import ROOT
from eyas.config import resolve
from eyas.config.errors import OptionError, UnknownOptionError
from eyas.log import warn

MODELS = ("YOLO", "RTDETR")
SAME_MODEL = frozenset(("to", "cpu", "cuda", "load", "eval", "fuse", "float"))  # methods that return the model
MEASURES = {"val": "val", "predict": "predict", "track": "track"}
PARAMETERS = frozenset(("source", "stream", "predictor", "validator", "persist"))  # of those methods, and no options
MOST_VALUES = 20  # combinations of values that one call is looked at with


def foretell(script: Path) -> None:
    """Warn of every line of a script that cannot work with Eyas, if the script trains before."""
    found = foresee(script.read_text(encoding="utf-8", errors="replace"))
    if found:
        lines = "\n".join(f"  line {number}: {text}" for number, text in found)
        warn(f"{script.name} asks for what Eyas lacks; it trains, and fails when it gets there:\n{lines}")


def foresee(code: str) -> list[tuple[int, str]]:
    """Return (line, what will fail and what to use) of a script's code; nothing of one that does not train."""
    try:
        tree = ast.parse(code)
    except SyntaxError:
        return []  # Python says it better
    nodes = list(reachable(tree))
    trained = [node.lineno for node in nodes if isinstance(node, ast.Call) and method(node) == "train"]
    if not trained:
        return []
    script = Script(nodes)
    late = [node for node in nodes if node not in tree.body or getattr(node, "lineno", 0) > min(trained)]
    found = {(node.lineno, text) for node in nodes if isinstance(node, ast.Call) for text in script.failures(node)}
    found |= {(node.lineno, text) for node in late if isinstance(node, ast.ImportFrom) for text in unanswered(node)}
    return sorted(found)


def reachable(node: ast.AST) -> Iterator[ast.AST]:
    """Give a node and those below it, without what cannot run or what the script guards itself."""
    yield node
    skipped: list[ast.stmt] = []
    if isinstance(node, ast.Try) and node.handlers:
        skipped = node.body
    if isinstance(node, ast.If) and (never(node.test) or asks_what_there_is(node.test)):
        skipped = node.body
    for child in ast.iter_child_nodes(node):
        if child not in skipped:
            yield from reachable(child)


def never(test: ast.expr) -> bool:
    """Whether a condition is false whatever happens."""
    written = isinstance(test, ast.Constant) and not test.value
    return written or ast.unparse(test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def asks_what_there_is(test: ast.expr) -> bool:
    """Whether a condition asks what an object has."""
    calls = [node.func for node in ast.walk(test) if isinstance(node, ast.Call)]
    return any(isinstance(fn, ast.Name) and fn.id == "hasattr" for fn in calls)


def method(call: ast.Call) -> str:
    """Return the name of the method that is called, "" for a function."""
    return call.func.attr if isinstance(call.func, ast.Attribute) else ""


def unanswered(node: ast.ImportFrom) -> Iterator[str]:
    """Give what an import of the incumbent's names will be answered with, where it fails."""
    module = node.module or ""
    if module.partition(".")[0] != ROOT or node.level:
        return
    for name in node.names:
        try:
            found = importlib.import_module(module)
            if name.name != "*" and not hasattr(found, name.name):
                importlib.import_module(f"{module}.{name.name}")
        except ImportError as error:
            yield str(error)


class Script:
    """What the names of a script stand for, as far as its code says so.

    Args:
        nodes: its nodes, without those that do not count.

    Attributes:
        classes: expressions that are a class of models.
        models: expressions that are a model wherever they are assigned.
        constants: names with the values that they may have.
    """

    def __init__(self, nodes: list[ast.AST]) -> None:
        self.classes = set(model_classes(nodes))
        bound = [pair for node in nodes for pair in bindings(node)]
        self.constants = self.known_values(nodes, bound)
        self.models: set[str] = set()
        for _ in range(2):  # a model may be assigned from one that is assigned further down
            self.models = {name for name, value in bound if self.is_model(value)} | self.annotated(nodes)
        others = {name for name, value in bound if not self.is_model(value) and ast.unparse(value) != "None"}
        self.models -= others

    def annotated(self, nodes: list[ast.AST]) -> set[str]:
        """Return parameters whose annotation is a class of models."""
        arguments = [node for node in nodes if isinstance(node, ast.arg) and node.annotation is not None]
        return {node.arg for node in arguments if ast.unparse(node.annotation) in self.classes}  # type: ignore[arg-type]

    def known_values(self, nodes: list[ast.AST], bound: list[tuple[str, ast.expr]]) -> dict[str, list[Any]]:
        """Return names that are assigned one value, or run over a list of values."""
        names = [name for name, _ in bound]
        found: dict[str, list[Any]] = {
            name: [value.value] for name, value in bound if isinstance(value, ast.Constant) and names.count(name) == 1
        }
        for node in nodes:
            if isinstance(node, ast.For) and isinstance(node.iter, ast.List | ast.Tuple):
                values = [item.value for item in node.iter.elts if isinstance(item, ast.Constant)]
                if isinstance(node.target, ast.Name) and node.target.id not in names:
                    found[node.target.id] = values
        return found

    def is_model(self, node: ast.expr) -> bool:
        """Whether an expression is a model."""
        if isinstance(node, ast.Call):
            if ast.unparse(node.func) in self.classes:
                return True
            called = node.func
            return isinstance(called, ast.Attribute) and called.attr in SAME_MODEL and self.is_model(called.value)
        return ast.unparse(node) in self.models

    def failures(self, call: ast.Call) -> Iterator[str]:
        """Give what a call will be answered with, where it fails."""
        called = call.func
        if isinstance(called, ast.Attribute) and self.is_model(called.value):
            name = called.attr
        elif self.is_model(called):
            name = "predict"
        else:
            return
        if name in LACKING:
            yield f"{ast.unparse(called)}(): {LACKING[name]}"
        elif name == "export" or name in MEASURES:
            for given in self.arguments(call):
                error = export_error(given) if name == "export" else measure_error(MEASURES[name], given)
                if error:
                    yield f"{ast.unparse(called)}(): {error}"

    def arguments(self, call: ast.Call) -> Iterator[dict[str, Any]]:
        """Give the arguments of a call that are known, once for every value that they may have."""
        given = {word.arg: word.value for word in call.keywords if word.arg}
        if call.args and method(call) == "export":
            given["format"] = call.args[0]
        known = {name: self.values(node) for name, node in given.items()}
        open_ended = any(word.arg is None for word in call.keywords) or not all(known.values())
        if method(call) == "export" and "format" not in known and open_ended:
            return  # it may be in the arguments that are not known
        certain = {name: values for name, values in known.items() if values}
        if method(call) == "export" and "format" in known and "format" not in certain:
            return
        for values in list(product(*certain.values()))[:MOST_VALUES]:
            yield dict(zip(certain, values, strict=True))

    def values(self, node: ast.expr) -> list[Any]:
        """Return the values that an expression may have; none if they are not known."""
        if isinstance(node, ast.Name):
            return self.constants.get(node.id, [])
        try:
            return [ast.literal_eval(node)]
        except (ValueError, TypeError):
            return []


def model_classes(nodes: list[ast.AST]) -> Iterator[str]:
    """Give the expressions by which a script calls the incumbent's classes of models."""
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == ROOT:
            yield from (name.asname or name.name for name in node.names if name.name in MODELS)
        elif isinstance(node, ast.Import):
            for name in node.names:
                if name.name == ROOT:
                    yield from (f"{name.asname or ROOT}.{model}" for model in MODELS)


def bindings(node: ast.AST) -> Iterator[tuple[str, ast.expr]]:
    """Give (name, value) of an assignment."""
    if isinstance(node, ast.Assign):
        for target in node.targets:
            yield ast.unparse(target), node.value
    elif isinstance(node, ast.AnnAssign | ast.NamedExpr) and node.value is not None:
        yield ast.unparse(node.target), node.value


def export_error(given: Mapping[str, Any]) -> str:
    """Return what ``export()`` says to such arguments; "" if it takes them."""
    rest = dict(given)
    try:
        target = check_format(rest.pop("format", "torchscript"))
        export_arguments(target, rest, Arguments(dict(rest)))
    except ValueError as error:
        return str(error)
    return ""


def measure_error(command: str, given: Mapping[str, Any]) -> str:
    """Return what ``val()``, ``predict()`` or ``track()`` says to the names of such arguments; "" if it takes them."""
    options = {name: value for name, value in given.items() if name not in PARAMETERS}
    try:
        resolve(call=Arguments(dict(options)).read(command, options), command=command)
    except UnknownOptionError as error:
        return str(error)
    except OptionError:
        return ""  # one option may be void without another whose value is not known
    return ""
