"""The package's names, where derived files go, and that looking at data needs no torch."""

from __future__ import annotations

import ast
import errno
import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

import eyas.data
from eyas.data.cache import cache_root
from eyas.data.report import KINDS, Weight, weight_of
from eyas.files import make_folder, replacing, write_atomic


def test_every_public_name_exists() -> None:
    for name in eyas.data.__all__:
        assert getattr(eyas.data, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        eyas.data.nothing  # noqa: B018


def test_indexing_does_not_import_torch(tmp_path: Path) -> None:
    code = (
        "import sys; from eyas.data import check_dataset, build_index, parse_labels; assert 'torch' not in sys.modules"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(eyas.data.__file__).parents[2])}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)


def test_cache_root(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EYAS_CACHE", str(tmp_path / "a"))
    assert cache_root() == tmp_path / "a"
    assert cache_root(tmp_path / "b") == tmp_path / "b"
    monkeypatch.delenv("EYAS_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "c"))
    if sys.platform != "win32":
        assert cache_root() == tmp_path / "c" / "eyas"
    assert not list(tmp_path.iterdir())


def kinds_in(tree: ast.AST) -> set[str]:
    """Names of constants, or "..." for a text, that stand where the kind of a problem does."""
    places = {"Problem": 2, "LabelProblem": 1, "ImageProblem": 0, "drop": 2}
    found: list[ast.expr] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = getattr(node.func, "attr", getattr(node.func, "id", ""))
            found += node.args[place : place + 1] if (place := places.get(called)) is not None else []
            if ast.unparse(node.func).endswith("problems.append") and isinstance(node.args[0], ast.Tuple):
                found.append(node.args[0].elts[1])
            if ast.unparse(node.func).endswith("odd.add"):
                found.append(node.args[0])
        elif isinstance(node, ast.Yield) and isinstance(node.value, ast.Tuple):  # kind, what and path
            found += node.value.elts[:1]
        elif isinstance(node, ast.Return) and isinstance(node.value, ast.Tuple):  # kind and message
            found += node.value.elts[:1] if any(isinstance(each, ast.JoinedStr) for each in node.value.elts[1:]) else []
        elif isinstance(node, ast.Return) and isinstance(node.value, ast.JoinedStr):  # f"{kind}: message"
            first, then = (*node.value.values, None)[:2]
            if (
                isinstance(first, ast.FormattedValue)
                and isinstance(then, ast.Constant)
                and str(then.value).startswith(": ")
            ):
                found.append(first.value)
    names = [name for each in found for name in ((each.body, each.orelse) if isinstance(each, ast.IfExp) else (each,))]
    return {name.id for name in names if isinstance(name, ast.Name) and name.id.lstrip("_").isupper()} | {
        "..." for each in names if isinstance(each, ast.Constant) and isinstance(each.value, str) and each.value
    }


def test_every_kind_of_problem_says_where_it_is_defined_whether_what_it_is_about_is_kept() -> None:
    root = Path(eyas.data.__file__).parents[1]
    found = set()
    for file in sorted(root.glob("data/**/*.py")):
        module = importlib.import_module(".".join(("eyas", *file.relative_to(root).with_suffix("").parts)))
        for name in kinds_in(ast.parse(file.read_text())):
            kind = vars(module).get(name)
            assert kind in KINDS, f"{file}: {name} is no kind of `kept_kind` or `lost_kind`"
            found.add(kind)
    assert found == {*KINDS} - {"image that could not be loaded"}, "which a training tells"
    assert weight_of("a kind from outside") == Weight(False, "error")


def test_failed_write_keeps_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "x"
    write_atomic(file, b"old")

    def fail() -> None:
        with replacing(file) as handle:
            handle.write(b"half")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fail()
    assert file.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [file]


def test_a_folder_that_may_not_be_made_is_named_whole_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(folder: Path, **settings: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(folder))  # which root is never told

    monkeypatch.chdir(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "mkdir", refuse)
        with pytest.raises(PermissionError) as caught:
            make_folder(Path("runs"), "Runs go elsewhere with project=FOLDER.")
    where = f"cannot make the folder {tmp_path / 'runs'}: Permission denied. Runs go elsewhere with project=FOLDER."
    assert str(caught.value) == where
    make_folder(Path("runs/a"), "")
    with pytest.raises(FileExistsError):
        make_folder(Path("runs/a"), "", exist_ok=False)


@pytest.mark.skipif(os.name != "posix", reason="FIFOs and devices of POSIX")
def test_what_is_no_file_is_never_replaced_by_one(tmp_path: Path) -> None:
    """Root would replace /dev/null for everybody; a pipe stands for a device, which only root can make."""
    pipe, link, dangling = (tmp_path / name for name in ("pipe", "link", "dangling"))
    os.mkfifo(pipe)
    link.symlink_to(os.devnull)
    dangling.symlink_to(tmp_path / "not-there")
    for path, kind in ((pipe, "a FIFO, not a file"), (link, "a device, not a file")):
        with pytest.raises(OSError, match=kind):
            write_atomic(path, b"data")
    assert pipe.is_fifo() and link.is_symlink() and len(list(tmp_path.iterdir())) == 3
    write_atomic(dangling, b"data")
    assert dangling.read_bytes() == b"data"


@pytest.mark.skipif(os.name != "posix", reason="POSIX permissions")
def test_written_files_are_as_readable_as_any_other(tmp_path: Path) -> None:
    (tmp_path / "plain").write_bytes(b"")
    write_atomic(tmp_path / "x", b"data")
    assert (tmp_path / "x").read_bytes() == b"data"
    assert (tmp_path / "x").stat().st_mode == (tmp_path / "plain").stat().st_mode
