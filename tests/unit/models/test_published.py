"""Published weights: the registry, fetching from a local server, and reading without running anything."""

from __future__ import annotations

import functools
import hashlib
import http.server
import logging
import pickle
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from eyas.data.download import download_file
from eyas.models.published import Published, UnknownWeightsError, fetch, find_published, is_name, model_of
from eyas.models.rtdetr.official import RTDETRNet
from eyas.models.rtdetr.published import PUBLISHED, plain_state, read_published
from eyas.models.rtdetr.variants import OFFICIAL


class Handler(http.server.SimpleHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path.startswith("/cut"):
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"x" * 10)
        else:
            super().do_GET()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder and its http address."""
    folder = tmp_path / "served"
    folder.mkdir()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield folder, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


STATE = {"encoder.input_proj.0.0.weight": torch.ones(2, 2, 1, 1), "decoder.enc_output.1.bias": torch.zeros(2)}


def entry(url: str) -> Published:
    return Published("mine", url, "rtdetr-r18", "somebody")


# -- registry ---------------------------------------------------------------------------------------------------------
def test_every_entry_says_where_for_what_and_under_which_licence() -> None:
    for name, item in PUBLISHED.items():
        assert item.name == name
        assert item.url.startswith("https://github.com/lyuwenyu/storage/releases/download/v0.")
        assert item.url.endswith(".pth") and item.file == item.url.split("/")[-1]
        assert item.licence == "Apache-2.0" and item.source
        assert item.model in OFFICIAL
        assert item.ap is None or 40 < item.ap < 60
    assert len({item.url for item in PUBLISHED.values()}) == len(PUBLISHED)
    with pytest.raises(AttributeError):
        PUBLISHED["rtdetr-r50"].ap = 60.0  # type: ignore[misc]


def test_names_are_found_in_any_case_and_near_ones_offered() -> None:
    assert find_published(" RTDETR-R50 ", PUBLISHED).file == "rtdetr_r50vd_6x_coco_from_paddle.pth"
    with pytest.raises(UnknownWeightsError, match="did you mean 'rtdetrv2-r34'"):
        find_published("rtdetrv2-r33", PUBLISHED)


def test_a_name_is_no_path_and_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert is_name("rtdetr-r180")
    assert not is_name("x.pth") and not is_name("folder/x") and not is_name(Path("rtdetr-r50"))
    with pytest.raises(UnknownWeightsError, match="'rtdetr-r180', and no file is: did you mean 'rtdetr-r18'"):
        find_published("rtdetr-r180", PUBLISHED)
    Path("rtdetr-r180").write_bytes(b"x")
    assert not is_name("rtdetr-r180")
    with pytest.raises(UnknownWeightsError, match="'rtdetr-r180': did you mean"):
        find_published("rtdetr-r180", PUBLISHED)


def test_the_model_of_a_name_or_file() -> None:
    for item in PUBLISHED.values():
        assert model_of(item.name, PUBLISHED) == model_of(f"there/{item.file}", PUBLISHED) == item.model
    assert model_of("mine.pth", PUBLISHED) == ""
    assert RTDETRNet.model_for("mine.pth") in OFFICIAL


# -- fetching ---------------------------------------------------------------------------------------------------------
def test_a_file_is_fetched_once_and_its_licence_told(
    served: tuple[Path, str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder, address = served
    torch.save({"model": STATE}, folder / "w.pth")
    digest = hashlib.sha256((folder / "w.pth").read_bytes()).hexdigest()
    item = replace(entry(f"{address}/w.pth"), sha256=digest.upper())
    with caplog.at_level(logging.INFO, logger="eyas"):
        path = fetch(item, tmp_path / "cache")
    assert path == tmp_path / "cache/weights/w.pth"
    assert "Apache-2.0" in caplog.text and item.source in caplog.text
    assert f"{path.stat().st_size:,} bytes, sha256 {digest}" in caplog.text
    (folder / "w.pth").unlink()
    caplog.clear()
    assert fetch(item, tmp_path / "cache") == path
    assert "Apache-2.0" not in caplog.text
    assert [p.name for p in path.parent.iterdir()] == ["w.pth"]  # no lock, no temporary folder
    assert set(read_published(path)) == {"encoder.input_proj.0.conv.weight", "decoder.enc_output.norm.bias"}


def test_failures_are_told_with_what_to_do_and_leave_nothing(served: tuple[Path, str], tmp_path: Path) -> None:
    folder, address = served
    (folder / "w.pth").write_bytes(b"x" * 100)
    cache = tmp_path / "cache"
    for item, message in [
        (entry(f"{address}/none.pth"), "failed: 404"),
        (entry(f"{address}/cut.pth"), "broke off after 10 of 1,000 bytes"),
        (entry("http://127.0.0.1:9/w.pth"), "failed: .*refused"),
        (replace(entry(f"{address}/w.pth"), sha256="0" * 64), "has the SHA-256 .* not 0000"),
    ]:
        with pytest.raises(ValueError, match=message) as error:
            fetch(item, cache)
        assert str(cache / "weights" / item.file) in str(error.value)  # where to put it by hand
        assert list((cache / "weights").iterdir()) == []


def test_a_file_put_there_by_hand_is_used(tmp_path: Path) -> None:
    item = entry("http://127.0.0.1:9/w.pth")
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights/w.pth").write_bytes(b"by hand")
    assert fetch(item, tmp_path).read_bytes() == b"by hand"


def test_two_at_once_fetch_it_once(served: tuple[Path, str], tmp_path: Path) -> None:
    folder, address = served
    (folder / "w.bin").write_bytes(b"x" * 1000)
    found: list[Path] = []
    target = tmp_path / "in/w.bin"
    threads = [
        threading.Thread(target=lambda: found.append(download_file(f"{address}/w.bin", target))) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [target, target]
    assert [p.name for p in target.parent.iterdir()] == ["w.bin"]


def test_other_addresses_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no http"):
        download_file("file:///etc/passwd", tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


# -- reading ----------------------------------------------------------------------------------------------------------
def test_averaged_weights_come_first() -> None:
    a, b = torch.zeros(1), torch.ones(1)
    assert plain_state({"ema": {"module": {"x": a}, "updates": 3}, "model": {"x": b}}) == {"x": a}
    assert plain_state({"ema": {"x": a}, "model": {"x": b}}) == {"x": a}
    assert plain_state({"ema": None, "model": {"x": b}, "last_epoch": torch.tensor(1)}) == {"x": b}
    assert plain_state({"x": b}) == {"x": b}
    for empty in ({}, {"model": {}}, {"epoch": 3}, [b], None):
        assert plain_state(empty) is None


def test_what_is_no_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no checkpoint at"):
        read_published(tmp_path / "none.pth")
    (tmp_path / "text.pth").write_text("<html>")
    with pytest.raises(ValueError, match="text.pth was not opened: it is a web page"):
        read_published(tmp_path / "text.pth")
    torch.save({"epoch": 3}, tmp_path / "empty.pth")
    with pytest.raises(ValueError, match="holds no weights"):
        read_published(tmp_path / "empty.pth")


class Marker:
    """Unpickling this would make a file."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return open, (self.path, "w")


def test_code_in_a_file_is_not_run(tmp_path: Path) -> None:
    torch.save({"model": STATE, "extra": Marker(str(tmp_path / "ran"))}, tmp_path / "bad.pth")
    with pytest.raises(ValueError, match="bad.pth holds code"):
        read_published(tmp_path / "bad.pth")
    with (tmp_path / "raw.pth").open("wb") as file:
        pickle.dump(Marker(str(tmp_path / "ran")), file, protocol=2)  # the one torch knows
    with pytest.raises(ValueError, match="raw.pth was not opened: it is a plain pickle"):
        read_published(tmp_path / "raw.pth")
    assert not (tmp_path / "ran").exists()
