"""Importing Eyas is quick and leaves no trace: told by what is loaded and changed, never by a clock."""

from __future__ import annotations

import subprocess
import sys

import pytest

import eyas

# Runs in a fresh interpreter: import one module while watching environment, threads and sockets. What other packages do
# when they are imported (OpenCV sets LD_LIBRARY_PATH) is not ours to judge: those named third are imported before.
PROBE = """
import os, socket, sys, threading
module, heavy = sys.argv[1], set(sys.argv[2].split(","))
for name in filter(None, sys.argv[3].split(",")):
    __import__(name)
created = []
class Watched(socket.socket):
    def __init__(self, *args, **kwargs):
        created.append(args)
        super().__init__(*args, **kwargs)
socket.socket = Watched
environment, directory = dict(os.environ), os.getcwd()
__import__(module)
assert not heavy & set(sys.modules), heavy & set(sys.modules)
assert dict(os.environ) == environment
assert os.getcwd() == directory
assert threading.active_count() == 1, threading.enumerate()
assert not created
assert not __import__("logging").getLogger("eyas").handlers
"""


def probe(module, not_loaded, before):
    command = [sys.executable, "-c", PROBE, module, not_loaded, before]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize(
    ("module", "not_loaded", "before"),
    [
        ("eyas", "torch,numpy,pydantic,rich,yaml,cv2", ""),
        ("eyas.cli", "torch,numpy,pydantic,rich,yaml,cv2", ""),
        ("eyas.log", "torch,numpy,rich,IPython", ""),
        ("eyas.config", "torch,numpy,rich,cv2", ""),
        ("eyas.data", "matplotlib,skimage,sklearn", "cv2"),
        ("eyas.models", "matplotlib,cv2", "torch"),
        ("eyas.train", "skimage,sklearn,IPython", "cv2,torch"),
        ("eyas.api", "skimage,sklearn", "cv2,torch"),
    ],
)
def test_importing_has_no_side_effect(module, not_loaded, before):
    done = probe(module, not_loaded, before)
    assert done.returncode == 0, done.stderr


def test_public_names_exist_and_are_listed():
    for name in eyas.__all__:
        assert getattr(eyas, name) is not None
        assert name in dir(eyas)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="YOLO"):
        _ = eyas.Yolo
