"""The folder of a run: its name belongs to one run, its files to one process, whatever happens to that."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from eyas.train.folder import DESCRIPTION, LOCK, FolderInUse, claim, give_up, sole_writer
from eyas.train.rtdetr import RTDETRTrainer

# Says its number and that of a process that it forked, as loaders do, and which outlives it.
HOLDER = """
import os, sys, time
from pathlib import Path
from eyas.train.folder import sole_writer
with sole_writer(Path(sys.argv[1])):
    child = os.fork()
    if child:
        print(os.getpid(), child, flush=True)
    time.sleep(60)
"""


def test_of_many_runs_that_start_together_one_takes_the_name(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(claim, [tmp_path / "a" / "train"] * 32)) == 1


def test_a_name_is_free_until_a_run_has_begun_there(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    assert claim(tmp_path), "a folder that the user has made"
    with sole_writer(tmp_path):
        assert not claim(tmp_path)
        (tmp_path / DESCRIPTION).touch()
    assert not claim(tmp_path), "a run that ended meanwhile"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes.txt", DESCRIPTION]


def test_a_folder_into_which_nothing_was_written_goes(tmp_path: Path) -> None:
    for name in ("claimed", "held"):
        assert claim(tmp_path / name)
    give_up(tmp_path / "claimed")
    with sole_writer(tmp_path / "held"):
        give_up(tmp_path / "held")  # that of another, who goes on
        assert (tmp_path / "held" / LOCK).exists()
    assert list(tmp_path.iterdir()) == []


def test_a_second_writer_is_refused_and_told_of_the_first(tmp_path: Path) -> None:
    with sole_writer(tmp_path):
        who = re.escape(f"{tmp_path} is being written by process {os.getpid()} on {socket.gethostname()} (since ")
        for _ in range(2):  # asking does not take it from the first
            with pytest.raises(FolderInUse, match=who), sole_writer(tmp_path):
                pass
    with sole_writer(tmp_path):
        pass


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_what_a_dead_process_held_is_taken_over_though_its_children_live(tmp_path: Path) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    number, child = map(int, holder.stdout.readline().split())
    try:
        with pytest.raises(FolderInUse, match=f"process {number} on "), sole_writer(tmp_path):
            pass
        holder.kill()
        holder.wait()
        os.kill(child, 0)
        assert (tmp_path / LOCK).exists()
        with sole_writer(tmp_path):
            assert str(os.getpid()) in (tmp_path / LOCK).read_text()
    finally:
        os.kill(child, signal.SIGKILL)
        holder.kill()
        holder.stdout.close()
        holder.wait()


def test_trainers_made_before_either_began_have_folders_of_their_own(tmp_path: Path) -> None:
    options = {"model": "rtdetr-tiny", "data": "digits-tiny", "project": str(tmp_path)}
    one, two, same = (RTDETRTrainer(overrides={**options, **more}) for more in ({}, {}, {"exist_ok": True}))
    assert one.save_dir == two.save_dir == same.save_dir == tmp_path / "train"
    one.take_folder()
    with sole_writer(one.save_dir):
        two.take_folder()
        same.take_folder()
        assert [one.save_dir.name, two.save_dir.name, same.save_dir.name] == ["train", "train-2", "train"]
        assert two.last == tmp_path / "train-2" / "weights" / "last.pt"
        with pytest.raises(FolderInUse), sole_writer(same.save_dir):
            pass
