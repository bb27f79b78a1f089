"""What people predict on, as real files, a real server and real threads."""

from __future__ import annotations

import functools
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
import pytest

import blobs
from eyas.evaluate import Predictor
from eyas.evaluate.sources import Picture, Reading, check_listable, open_source, opening
from eyas.evaluate.sources.address import Address
from eyas.evaluate.sources.screen import Screen
from eyas.evaluate.sources.stream import Stream
from eyas.evaluate.sources.video import Video

SIZE = (48, 64)  # of all pictures here, (h, w)


def grey(value: int) -> np.ndarray:
    return np.full((*SIZE, 3), value, np.uint8)


def write_video(path: Path, frames: int = 12, codec: str = "MJPG") -> Path:
    """A video at 10 frames per second, each 20 brighter than the one before."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), 10, SIZE[::-1])
    for number in range(frames):
        writer.write(grey(20 * (number % 12)))
    writer.release()
    return path


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("video") / "clip.avi")


def numbered(pictures: Iterator[Picture]) -> list[tuple[int | None, int]]:
    """Number and brightness, in steps of 20, of each picture."""
    return [(picture.frame, round(float(picture.pixels.mean()) / 20)) for picture in pictures]


def read(source: Any, **reading: Any) -> list[tuple[int | None, int]]:
    return [found for item in open_source(source, Reading(**reading)) for found in numbered(item.pictures())]


# -- videos ------------------------------------------------------------------------------------------------------------
def test_a_video_gives_its_frames_in_order(clip: Path) -> None:
    assert read(clip) == [(number + 1, number) for number in range(12)]
    assert read(str(clip), vid_stride=5) == [(1, 0), (6, 5), (11, 10)]
    (item,) = open_source(clip, Reading(vid_stride=5))
    assert {picture.fps for picture in item.pictures()} == {2.0} and item.name == str(clip)
    assert item.memory() == 12 // 5 * 48 * 64 * 3 and not item.live


def test_frames_are_read_when_they_are_asked_for(tmp_path: Path) -> None:
    """Three of a hundred are used, and the file may be gone then."""
    stream = Predictor(blobs.Blobs(), imgsz=64, batch=2)(write_video(tmp_path / "long.avi", 100), stream=True)  # type: ignore[arg-type]
    assert [next(stream).frame for _ in range(3)] == [1, 2, 3]  # type: ignore[call-overload]
    stream.close()  # type: ignore[union-attr]


def test_damaged_frames_are_left_out_counted_and_named(clip: Path, tmp_path: Path, caplog: Any) -> None:
    content = bytearray(clip.read_bytes())
    starts = [i for i in range(len(content)) if content[i : i + 3] == b"\xff\xd8\xff"]
    for number in (4, 7):
        content[starts[number] : starts[number + 1] - 8] = bytes(starts[number + 1] - 8 - starts[number])
    (tmp_path / "bad.avi").write_bytes(content)
    assert [frame for frame, _ in read(tmp_path / "bad.avi")] == [1, 2, 3, 4, 6, 7, 9, 10, 11, 12]
    assert "2 of 12 frames were left out, because they cannot be read: 5, 8" in caplog.text


def test_a_video_that_breaks_off_says_so(clip: Path, tmp_path: Path, caplog: Any) -> None:
    content = bytearray(clip.read_bytes())
    starts = [i for i in range(len(content)) if content[i : i + 3] == b"\xff\xd8\xff"]
    content[starts[6] :] = bytes(len(content) - starts[6])
    (tmp_path / "cut.avi").write_bytes(content)
    assert len(read(tmp_path / "cut.avi")) == 6
    assert "the video ends at frame 6; its header announces 12" in caplog.text


def test_a_file_that_is_no_video_is_told(tmp_path: Path) -> None:
    (tmp_path / "no.mp4").write_bytes(b"x" * 1000)
    with pytest.raises(ValueError, match="cannot be opened; it is damaged"):
        read(tmp_path / "no.mp4")


def test_a_folder_holds_images_and_videos(clip: Path, tmp_path: Path, caplog: Any) -> None:
    (tmp_path / "b.avi").write_bytes(clip.read_bytes())
    (tmp_path / "c.mp4").write_bytes(b"x" * 1000)
    (tmp_path / ".hidden.avi").write_bytes(clip.read_bytes())
    cv2.imwrite(str(tmp_path / "a.png"), grey(200))
    predict = Predictor(blobs.Blobs(), imgsz=64, batch=4)  # type: ignore[arg-type]
    found = predict(tmp_path)
    assert [(Path(r.path).name, r.frame) for r in found] == [("a.png", None), *(("b.avi", n + 1) for n in range(12))]
    assert "1 of 3 files were left out" in caplog.text and "c.mp4" in caplog.text
    assert [r.path for r in predict(str(tmp_path / "*.avi"))] == [str(tmp_path / "b.avi")] * 12


def test_a_list_of_results_of_a_long_video_is_warned_of(clip: Path, caplog: Any, monkeypatch: Any) -> None:
    check_listable(open_source(clip))
    assert not caplog.text
    monkeypatch.setattr(opening, "MUCH", 100_000)
    check_listable(open_source([clip, grey(0)]))
    assert caplog.text.count("stream=True needs no memory") == 1 and "clip.avi" in caplog.text


# -- lists and pages ---------------------------------------------------------------------------------------------------
def test_a_list_names_files_in_its_order(clip: Path, tmp_path: Path, caplog: Any) -> None:
    for name, value in (("b", 40), ("a", 100)):
        cv2.imwrite(str(tmp_path / f"{name}.png"), grey(value))
    (tmp_path / "list.txt").write_text(f"b.png\n\n{clip}\nmissing.png\n  a.png\n*.png\n")
    found = Predictor(blobs.Blobs(), imgsz=64)(tmp_path / "list.txt", stream=True)  # type: ignore[arg-type]
    names = [Path(result.path).name for result in found]
    assert names == ["b.png", *["clip.avi"] * 12, "a.png", "a.png", "b.png"]
    assert "1 of 6 files were left out" in caplog.text and "missing.png" in caplog.text
    (tmp_path / "loop.txt").write_text("loop.txt\n")
    (tmp_path / "empty.txt").write_text("\n")
    for name, words in (("loop", "names the list"), ("empty", "is empty")):
        with pytest.raises(ValueError, match=words):
            open_source(tmp_path / f"{name}.txt")


def test_every_page_of_a_tiff_is_a_picture(tmp_path: Path) -> None:
    pages = [np.full((*SIZE, 3), (0, 20 * i, 255), np.uint8) for i in range(3)]
    assert cv2.imwritemulti(str(tmp_path / "scan.tif"), pages)
    (item,) = open_source(tmp_path / "scan.tif")
    found = list(item.pictures())
    assert [(picture.frame, picture.fps) for picture in found] == [(1, None), (2, None), (3, None)]
    for picture, page in zip(found, pages, strict=True):
        np.testing.assert_array_equal(picture.pixels, page)
    assert cv2.imwritemulti(str(tmp_path / "deep.tif"), [np.full(SIZE, 256 * i, np.uint16) for i in (15, 10)])
    assert [found[1] for found in read(tmp_path / "deep.tif")] == [round(240 / 20), round(160 / 20)]
    cv2.imwrite(str(tmp_path / "one.tif"), pages[0])
    assert read(tmp_path / "one.tif")[0][0] is None


def test_a_damaged_page_is_left_out_and_named(tmp_path: Path, caplog: Any) -> None:
    from PIL import Image

    noise = np.random.default_rng(0).integers(0, 256, (3, *SIZE, 3), dtype=np.uint8)
    first, *others = [Image.fromarray(page) for page in noise]
    first.save(tmp_path / "scan.tif", save_all=True, append_images=others, compression="tiff_deflate")
    content = bytearray((tmp_path / "scan.tif").read_bytes())
    with Image.open(tmp_path / "scan.tif") as image:
        image.seek(1)
        start, length = image.tag_v2[273][0], image.tag_v2[279][0]  # type: ignore[attr-defined]
    content[start : start + length] = bytes(length)
    (tmp_path / "scan.tif").write_bytes(content)
    assert [frame for frame, _ in read(tmp_path / "scan.tif")] == [1, 3]
    assert "1 of 3 pages were left out: 2" in caplog.text


# -- addresses ---------------------------------------------------------------------------------------------------------
class Handler(http.server.SimpleHTTPRequestHandler):
    extensions_map: ClassVar[dict[str, str]] = {".png": "image/png", ".avi": "video/x-msvideo", ".html": "text/html"}

    def do_GET(self) -> None:
        if self.path == "/silent.png":  # says neither how long it is nor when it ends
            self.send_response(200)
            self.send_header("Content-Type", "image/png")
            self.end_headers()
            self.wfile.write(b"x" * 5000)
        elif self.path == "/live.mjpg":
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
            self.end_headers()
        else:
            super().do_GET()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def served(clip: Path) -> Iterator[str]:
    """The http address of the folder that the clip is in."""
    cv2.imwrite(str(clip.parent / "a picture.png"), grey(100))
    (clip.parent / "page.html").write_text("<html>")
    handler = functools.partial(Handler, directory=str(clip.parent))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_images_and_videos_behind_addresses(served: str) -> None:
    assert read(f"{served}/a%20picture.png?size=1") == [(None, 5)]
    assert read([f"{served}/clip.avi"], vid_stride=6) == [(1, 0), (7, 6)]
    (item,) = open_source(f"{served}/a%20picture.png")
    assert next(item.pictures()).path == f"{served}/a%20picture.png" and not item.live


def test_addresses_that_are_not_read(served: str) -> None:
    with pytest.raises(ValueError, match="neither an image nor a video, but text/html"):
        read(f"{served}/page.html")
    with pytest.raises(ValueError, match="failed: 404"):
        read(f"{served}/none.png")
    for name, words in (
        ("clip.avi", r"has [\d,]+ bytes, more than 1,000"),
        ("silent.png", "has more than 1,000 bytes"),
    ):
        with pytest.raises(ValueError, match=words):
            list(Address(f"{served}/{name}", Reading(), largest=1000).pictures())
    (live,) = open_source(f"{served}/live.mjpg")
    assert live.live
    with pytest.raises(ValueError, match="give stream=True"):
        check_listable([live])


# -- webcams, streams, the screen --------------------------------------------------------------------------------------
class Camera:
    """What OpenCV gives for an address: so many frames, the first of which is `first`, and then no more.

    Args:
        frames: brightness of each; waits before one for which `gate` has an event.
    """

    def __init__(self, frames: list[int], gate: dict[int, threading.Event] | None = None) -> None:
        self.frames, self.gate, self.at = frames, gate or {}, -1

    def isOpened(self) -> bool:
        return bool(self.frames)

    def get(self, _: int) -> float:
        return 25.0

    def grab(self) -> bool:
        self.at += 1
        if self.at in self.gate:
            self.gate[self.at].wait(10)
        return self.at < len(self.frames)

    def retrieve(self) -> tuple[bool, np.ndarray]:
        return True, grey(20 * self.frames[self.at])

    def release(self) -> None:
        pass


def test_the_newest_frame_of_a_stream_is_next(caplog: Any) -> None:
    """While somebody looks at frame 1, frames 2 to 4 come; frame 4 is next. With a buffer nothing is skipped."""
    for buffer, wanted in ((False, [1, 4]), (True, [1, 2, 3, 4])):
        rest = threading.Event()
        stream = Stream("rtsp://a", buffer=buffer, retries=0, connect=lambda _, e=rest: Camera([0, 1, 2, 3], {1: e}))  # type: ignore[misc]
        pictures = stream.pictures()
        found = [next(pictures)]
        reader = next(thread for thread in threading.enumerate() if thread.name == "eyas-rtsp://a")
        rest.set()
        reader.join(10)
        found += pictures
        assert [picture.frame for picture in found] == wanted and found[0].fps == 25
        assert round(float(found[-1].pixels.mean()) / 20) == 3


def test_a_stream_that_breaks_off_is_connected_again_a_few_times(caplog: Any) -> None:
    cameras = iter([Camera([0, 1]), Camera([]), Camera([2]), Camera([]), Camera([]), Camera([9])])
    stream = Stream("rtsp://a", buffer=True, retries=2, pause=0, connect=lambda _: next(cameras))  # type: ignore[arg-type, return-value]
    assert numbered(stream.pictures()) == [(1, 0), (2, 1), (3, 2)]
    assert caplog.text.count("broke off") == 4 and "2 attempts to reconnect failed after frame 3" in caplog.text


def test_a_reader_ends_with_whom_it_reads_for() -> None:
    stream = Stream(0, connect=lambda _: Camera([0] * 10_000))  # type: ignore[arg-type, return-value]
    pictures = stream.pictures()
    next(pictures)
    (reader,) = [thread for thread in threading.enumerate() if thread.name == "eyas-webcam 0"]
    pictures.close()  # type: ignore[attr-defined]
    assert not reader.is_alive()


def test_numbers_and_addresses_are_streams_which_never_end() -> None:
    for source in (0, "0", "rtsp://camera/1", "RTMP://x/y", "udp://1.2.3.4:5"):
        (item,) = open_source(source, Reading(vid_stride=3, stream_buffer=True))
        assert isinstance(item, Stream) and item.live and (item.stride, item.buffer) == (3, True)
    with pytest.raises(ValueError, match=r"webcam 0 never ends.*stream=True"):
        Predictor(blobs.Blobs())(0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="rtsp://x cannot be opened"):
        next(Stream("rtsp://x", connect=lambda _: Camera([])).pictures())  # type: ignore[arg-type, return-value]


def test_the_screen_and_its_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monitors = [
        {"left": 0, "top": 0, "width": 300, "height": 100},
        {"left": 100, "top": 0, "width": 200, "height": 100},
    ]
    areas = {"screen": (0, 0, 300, 100), "screen 1": (100, 0, 200, 100), "screen 5 6 70 80": (5, 6, 70, 80)}
    for text, wanted in (areas | {"Screen 1 5 6 70 80": (105, 6, 70, 80)}).items():
        (item,) = open_source(text)
        assert isinstance(item, Screen) and item.live and tuple(item.area(monitors).values()) == wanted, text
    with pytest.raises(ValueError, match="no monitor 2; they go up to 1"):
        Screen("screen 2").area(monitors)
    for text in ("screen 1 2", "screen 1 2 0 5"):
        with pytest.raises(ValueError, match="write 'screen'"):
            open_source(text)


def test_without_a_screen_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mss", reason="mss is not installed")
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ValueError, match="no picture can be taken of the screen"):
        next(Screen("screen").pictures())


def test_a_stride_below_one_is_refused(clip: Path) -> None:
    with pytest.raises(ValueError, match="vid_stride must be at least 1"):
        Predictor(blobs.Blobs(), vid_stride=0)  # type: ignore[arg-type]
    assert Video(str(clip)).stride == 1
