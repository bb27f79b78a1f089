"""Which line of the user's own code is to blame: from tracebacks, from messages that name one, from the source."""

from __future__ import annotations

import ast
import linecache
import re
import site
import sys
import sysconfig
import traceback
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import TypeGuard

from eyas.rehearsal.report import Place

FRAME = re.compile(r'^\s*File "([^"]+)", line (\d+)', re.MULTILINE)  # of a traceback, and of faulthandler
NAMED = re.compile(r"\(([\w.-]+\.py), line (\d+)")  # how Eyas' messages name a line
MOST_LINES = 12  # of a message


def place_of(error: BaseException, script: Path) -> Place | None:
    """Return the innermost line of the user's in an error, those of other processes and of causes included."""
    return place_in(text_of(error)) or named_place(str(error), script)


def innermost(error: BaseException) -> Place | None:
    """Return the innermost line of an error, whoever wrote it."""
    frames = FRAME.findall(text_of(error))
    return line_at(frames[-1][0], int(frames[-1][1])) if frames else None


def text_of(error: BaseException) -> str:
    """Return the traceback as Python prints it."""
    return "".join(traceback.format_exception(error))


def place_in(text: str, innermost_first: bool = False) -> Place | None:
    """Return the innermost line of the user's in printed tracebacks."""
    frames = [(file, int(line)) for file, line in FRAME.findall(text) if is_users(file)]
    return line_at(*frames[0 if innermost_first else -1]) if frames else None


def named_place(message: str, script: Path) -> Place | None:
    """Return the line that a message names by the bare name of its file."""
    for name, line in NAMED.findall(message):
        files = [str(script), *(getattr(module, "__file__", None) or "" for module in list(sys.modules.values()))]
        for file in files:
            if Path(file).name == name and is_users(file):
                return line_at(file, int(line))
    return None


def line_at(file: str, line: int) -> Place:
    """Return a line with its code."""
    linecache.checkcache(file)
    return Place(str(Path(file).resolve()), line, linecache.getline(file, line).strip())


def message_of(error: BaseException) -> str:
    """Return what an error says, with its kind where the words alone would not tell; long ones are cut."""
    text = str(error)
    deepest = innermost(error)
    at_home = deepest is not None and Path(deepest.file).is_relative_to(not_users()[0])
    written_for_users = type(error).__module__.startswith("eyas.") or (at_home and isinstance(error, ValueError))
    if not (text and written_for_users):
        text = f"{type(error).__name__}: {text}" if text else type(error).__name__
    lines = [line for line in text.splitlines() if line.strip()]
    if "Traceback (most recent call last):" in text:  # of another process, whose error the first line tells
        lines = lines[:1]
    return "\n".join(lines[:MOST_LINES])


def is_users(file: str) -> bool:
    """Whether a file is neither Python's, nor of an installed package, nor of this library."""
    path = Path(file)
    return file.endswith(".py") and path.exists() and not any(path.resolve().is_relative_to(p) for p in not_users())


@cache
def not_users() -> tuple[Path, ...]:
    """Return the folders of code that the user did not write."""
    names = ("stdlib", "platstdlib", "purelib", "platlib")
    folders = [*(sysconfig.get_path(name) for name in names), *site.getsitepackages(), site.getusersitepackages()]
    return (Path(__file__).resolve().parents[1], *(Path(folder).resolve() for folder in folders))


# -- from the source ---------------------------------------------------------------------------------------------------
def class_line(cls: type) -> Place | None:
    """Return where a class of the user's begins, or the nearest of its bases that is one."""
    for one in cls.__mro__:
        for node in class_nodes(one):
            return line_at(file_of(one), node.lineno)
    return None


def method_line(cls: type, name: str) -> Place | None:
    """Return where a class of the user's defines a method."""
    for one in cls.__mro__:
        for node in class_nodes(one):
            for item in node.body:
                if isinstance(item, ast.FunctionDef) and item.name == name:
                    return line_at(file_of(one), item.lineno)
    return None


def attribute_lines(cls: type) -> dict[str, Place]:
    """Return attributes that the user's classes set on ``self``, each with the line that changes it last.

    A line outside ``__init__`` is preferred: what is set there anew in every process does no harm.
    """
    found: dict[str, tuple[bool, Place]] = {}
    for one in cls.__mro__:
        for node in class_nodes(one):
            for method in (item for item in node.body if isinstance(item, ast.FunctionDef)):
                starts = method.name == "__init__"
                for target in targets(method):
                    if not is_attribute_of(target, "self"):
                        continue
                    if target.attr not in found or (found[target.attr][0] and not starts):
                        found[target.attr] = starts, line_at(file_of(one), target.lineno)
    return {name: place for name, (_, place) in found.items()}


def stock_attributes(cls: type) -> set[str]:
    """Return attributes that Eyas' own classes among the bases set on ``self``."""
    files = {file_of(base) for base in cls.__mro__ if base.__module__.startswith("eyas.")}
    return {t.attr for file in files if file for t in targets(parsed(file)) if is_attribute_of(t, "self")}


def setting_line(name: str, files: Iterable[str]) -> Place | None:
    """Return a line of the user's files that sets an attribute of this name on anything, or calls ``setattr``."""
    for file in (file for file in files if is_users(file)):
        for target in targets(parsed(file)):
            if isinstance(target, ast.Attribute) and target.attr == name:
                return line_at(file, target.lineno)
        for node in ast.walk(parsed(file)):
            if isinstance(node, ast.Call) and "setattr" in ast.unparse(node.func) and name in ast.unparse(node):
                return line_at(file, node.lineno)
    return None


def trainer_lines(script: Path) -> dict[str, Place]:
    """Return attributes that a file's callbacks and functions set on what they call ``trainer``."""
    set_here = [target for target in targets(parsed(str(script))) if is_attribute_of(target, "trainer")]
    return {target.attr: line_at(str(script), target.lineno) for target in set_here}


def global_lines(script: Path) -> dict[str, Place]:
    """Return global variables of a file, each with a line that changes it; one inside a function is preferred."""
    tree = parsed(str(script))
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    top = {t.id: t.lineno for node in tree.body for t in targets(node, deep=False) if isinstance(t, ast.Name)}
    inner = {}
    for function in functions:
        declared = {name for node in ast.walk(function) if isinstance(node, ast.Global) for name in node.names}
        own = {t.id for t in targets(function) if isinstance(t, ast.Name)} - declared
        for target in (*targets(function), *changed_in_place(function)):
            root = target.value if isinstance(target, ast.Subscript) else target
            if isinstance(root, ast.Name) and root.id in top and root.id not in own:
                inner[root.id] = root.lineno
    return {name: line_at(str(script), line) for name, line in (top | inner).items()}


def random_call(script: Path, module: str) -> Place | None:
    """Return a line of a file that draws from a module's random numbers, such as ``random`` or ``numpy.random``."""
    endings = {"random": ("random",), "numpy.random": ("np.random", "numpy.random")}[module]
    for node in ast.walk(parsed(str(script))):
        function = node.func if isinstance(node, ast.Call) else None
        if not isinstance(function, ast.Attribute) or "seed" in function.attr:
            continue
        if ast.unparse(function.value) in endings:
            return line_at(str(script), function.lineno)
    return None


@cache
def parsed(file: str) -> ast.Module:
    """Return the syntax tree of a file."""
    return ast.parse(Path(file).read_bytes())


def class_nodes(cls: type) -> Iterator[ast.ClassDef]:
    """Yield the definition of a class, if it is the user's."""
    file = file_of(cls)
    if is_users(file):
        name = cls.__qualname__.rpartition(".")[2]
        yield from [n for n in ast.walk(parsed(file)) if isinstance(n, ast.ClassDef) and n.name == name][-1:]


def file_of(cls: type) -> str:
    """Return the file that a class is written in, empty if there is none."""
    return getattr(sys.modules.get(cls.__module__), "__file__", None) or ""


def targets(node: ast.AST, deep: bool = True) -> Iterator[ast.expr]:
    """Yield what a piece of code assigns to; ``x[i] = ...`` counts as ``x``, except where ``x`` is a plain name."""
    for inner in ast.walk(node) if deep else [node]:
        assigned: list[ast.expr] = []
        if isinstance(inner, ast.Assign):
            assigned = list(inner.targets)
        elif isinstance(inner, ast.AugAssign | ast.AnnAssign):
            assigned = [inner.target]
        for target in assigned:
            for one in target.elts if isinstance(target, ast.Tuple | ast.List) else [target]:
                yield one.value if isinstance(one, ast.Subscript) and isinstance(one.value, ast.Attribute) else one


def changed_in_place(node: ast.AST) -> Iterator[ast.expr]:
    """Yield names whose methods are called as statements, as in ``seen.append(1)``."""
    for inner in ast.walk(node):
        if isinstance(inner, ast.Expr) and isinstance(inner.value, ast.Call):
            function = inner.value.func
            if isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name):
                yield function.value


def is_attribute_of(node: ast.expr, name: str) -> TypeGuard[ast.Attribute]:
    """Whether an expression is ``name.something``."""
    return isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == name
