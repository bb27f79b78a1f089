"""Data sets that stay elsewhere: what is read is what lies there, whatever the form and the kind of storage."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import fsspec
import numpy as np
import pytest

from eyas.data.convert import convert
from eyas.data.dataset_yaml import check_dataset
from eyas.data.image_file import copy_image_file, open_image_file
from eyas.data.image_header import read_header
from eyas.data.index import ImageIndex, build_index
from eyas.data.remote import service
from eyas.data.remote.address import is_remote, led_to, parse_room, room_for, to_path, to_url
from eyas.data.remote.service import RemoteError
from eyas.data.store import ImageStore
from far_away import Server, in_memory, serving

pytest.importorskip("aiohttp")

NAMES = {0: "cat", 1: "dog"}
SIDES = {"a": (40, 60), "b": (30, 30), "c d": (300, 400), "e": (50, 20)}  # "c d" has more than 64 KiB


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "PAUSES", (0.001, 0.001))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The same four images and objects in every form that there is."""
    root, rng = tmp_path / "set", np.random.default_rng(0)
    coco: dict[str, Any] = {"images": [], "annotations": [], "categories": [{"id": 5, "name": "cat"}]}
    coco["categories"].append({"id": 9, "name": "dog"})
    lines: list[dict[str, Any]] = [{"names": ["cat", "dog"]}]
    for place in ("images/train", "labels/train", "ignored/train", "annotations", "xml"):
        (root / place).mkdir(parents=True)
    for number, (stem, (height, width)) in enumerate(SIDES.items()):
        image = rng.integers(0, 255, (height, width, 3), np.uint8)
        suffix = "jpg" if stem in "ab" else "png"
        assert cv2.imwrite(str(root / f"images/train/{stem}.{suffix}"), image)
        x, y, w, h, cls = 4, 6, 10, 8, number % 2
        row = f"{cls} {(x + w / 2) / width} {(y + h / 2) / height} {w / width} {h / height}\n"
        (root / f"labels/train/{stem}.txt").write_text(row)
        coco["images"].append({"id": number, "file_name": f"{stem}.{suffix}", "height": height, "width": width})
        coco["annotations"].append({"id": number, "image_id": number, "category_id": 5 + 4 * cls, "bbox": [x, y, w, h]})
        lines.append({"image": f"images/train/{stem}.{suffix}", "width": width, "height": height, "split": "train"})
        lines[-1]["objects"] = [{"class": cls, "bbox": [x, y, w, h]}]
        corners = "".join(f"<{k}>{v}</{k}>" for k, v in zip(("xmin", "ymin", "xmax", "ymax"), (x, y, x + w, y + h)))
        size = f"<size><width>{width}</width><height>{height}</height></size>"
        item = f"<object><name>{NAMES[cls]}</name><bndbox>{corners}</bndbox></object>"
        (root / f"xml/{stem}.xml").write_text(f"<annotation>{size}{item}</annotation>")
    (root / "ignored/train/a.txt").write_text("-1 0.5 0.5 0.2 0.2\n")
    (root / "annotations/instances_train.json").write_text(json.dumps(coco))
    (root / "lines.ndjson").write_text("\n".join(map(json.dumps, lines)))
    (root / "list.txt").write_text("".join(f"images/train/{p.name}\n" for p in (root / "images/train").iterdir()))
    names = "names: [cat, dog]\n"
    (root / "yolo.yaml").write_text(f"train: images/train\n{names}")
    (root / "listed.yaml").write_text(f"train: list.txt\n{names}")
    (root / "coco.yaml").write_text("train: {annotations: annotations/instances_train.json, images: images/train}\n")
    (root / "voc.yaml").write_text(f"train: {{annotations: xml, images: images/train}}\n{names}")
    return root


@pytest.fixture
def server(folder: Path) -> Iterator[Server]:
    with serving(folder, ranges=True) as server:
        yield server


def opened(data: Any, folder: Path, **options: Any) -> ImageIndex:
    cache = folder.parent / "cache"
    described = check_dataset(data, splits=("train",), cache_dir=cache, **options)
    return build_index(described["train"], names=described["names"], cache_dir=cache)


def images_of(index: ImageIndex) -> list[np.ndarray]:
    store = ImageStore(index, imgsz=64)
    return [store.load(i) for i in range(len(index))]


def assert_alike(far: ImageIndex, near: ImageIndex) -> None:
    assert far.room is not None and near.room is None
    assert far.fingerprint == near.fingerprint
    assert far.report.counts == near.report.counts and len(far.ignored) == len(near.ignored)
    for mine, its in zip(images_of(far), images_of(near), strict=True):
        np.testing.assert_array_equal(mine, its)


FORMS = ("yolo.yaml", "listed.yaml", "coco.yaml", "voc.yaml", "lines.ndjson", "annotations/instances_train.json")


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_read_from_memory_as_from_the_disk(form: str, folder: Path) -> None:
    assert_alike(opened(f"{in_memory(folder)}/{form}", folder), opened(str(folder / form), folder))


@pytest.mark.parametrize("form", ["yolo.yaml", "lines.ndjson"])
def test_every_form_is_read_from_a_server_as_from_the_disk(form: str, folder: Path, server: Server) -> None:
    near = opened(str(folder / form), folder)
    far = opened(f"{server.url}/{form}", folder)
    assert_alike(far, near)
    assert any("c d.png" in far.path(i) for i in range(len(far))), "names are read without the % of addresses"


def test_a_folder_elsewhere_describes_itself(folder: Path) -> None:
    for file in [*folder.glob("*.*"), *(folder / "xml").iterdir()]:
        file.unlink()
    far, near = opened(f"{in_memory(folder)}/", folder), opened(str(folder), folder)
    assert far.names == near.names == NAMES
    assert_alike(far, near)


def test_a_description_here_names_places_elsewhere(folder: Path) -> None:
    url = in_memory(folder)
    near = opened(str(folder / "yolo.yaml"), folder)
    file = folder.parent / "own.yaml"
    for train in (
        f"train: {url}/images/train",
        f"path: {url}\ntrain: images/train",
        f"train: [{url}/images/train]",
        f"path: {url}\ntrain: ../images/train",  # as in exports
    ):
        file.write_text(f"{train}\nnames: [cat, dog]\n")
        assert_alike(opened(str(file), folder), near)
    one = opened({"train": f"{url}/images/train/a.jpg", "names": NAMES}, folder)
    assert len(one) == 1 and one.labels(0)[0].tolist() == [0] and len(one.ignored) == 1


def test_a_list_of_names_does_without_listings(folder: Path) -> None:
    with serving(folder, pages=False) as server:
        assert_alike(opened(f"{server.url}/listed.yaml", folder), opened(str(folder / "listed.yaml"), folder))
        (folder / "images/train/e.png").unlink()
        (folder / "labels/train/b.txt").write_text("1 0.5 0.5 0.1 0.1\n")
        far = opened(f"{server.url}/listed.yaml", folder)
        assert far.report.left_out == {"missing image": 1}
        assert far.labels(1)[0].tolist() == [1] and far.labels(1)[1][0, 2] == np.float32(0.1)
        with pytest.raises(RemoteError, match=r"yolo.yaml: train: .*images/train is not there, or the server lists no"):
            opened(f"{server.url}/yolo.yaml", folder)


# -- how little is fetched ---------------------------------------------------------------------------------------------
def test_opening_reads_no_more_of_large_images_than_their_ends(folder: Path, server: Server) -> None:
    large = "/images/train/c%20d.png"
    size = (folder / "images/train/c d.png").stat().st_size
    assert size > 3 << 16
    far = opened(f"{server.url}/yolo.yaml", folder)
    assert server.sent < size + (1 << 16) and server.asked["GET", large] == 2
    images_of(far)
    assert server.sent > size and server.asked["GET", large] == 3
    images_of(far)
    again = opened(f"{server.url}/yolo.yaml", folder)
    images_of(again)
    assert server.asked["GET", large] == 3, "it is kept"
    assert server.asked["GET", "/labels/train/a.txt"] == 1, "what has not changed is not copied again"


def test_a_server_without_parts_sends_each_image_once(folder: Path) -> None:
    with serving(folder) as server:
        images_of(opened(f"{server.url}/yolo.yaml", folder))
        got = {path: count for (method, path), count in server.asked.items() if method == "GET" and "images/tr" in path}
        assert got.pop("/images/train/") == 1
        assert set(got.values()) == {1} and len(got) == 4


def test_parts_of_an_image_are_those_of_its_file(folder: Path, server: Server) -> None:
    far = opened(f"{server.url}/yolo.yaml", folder)
    (path,) = [far.path(i) for i in range(len(far)) if "c d" in far.path(i)]
    data = (folder / "images/train/c d.png").read_bytes()
    with open_image_file(path) as file:
        assert file.read(10) == data[:10]
        assert file.seek(-50, os.SEEK_END) == len(data) - 50 and file.read() == data[-50:]
        assert file.seek(1000) == 1000 and file.read(200_000) == data[1000:201_000]
        assert file.seek(0) == 0 and file.read() == data
    copy_image_file(path, folder / "copy.png")
    assert (folder / "copy.png").read_bytes() == data


def test_what_stands_in_for_an_image_takes_no_room(folder: Path) -> None:
    far = opened(f"{in_memory(folder)}/yolo.yaml", folder)
    paths = [Path(far.path(i)) for i in range(len(far))]
    originals = [folder / "images/train" / path.name for path in paths]
    assert [path.stat().st_size for path in paths] == [path.stat().st_size for path in originals]
    assert not any(path.read_bytes().strip(b"\0") for path in paths)


# -- changes and faults ------------------------------------------------------------------------------------------------
def test_changes_are_seen_by_the_next_run(folder: Path) -> None:
    url, system = in_memory(folder), fsspec.filesystem("memory")
    first = opened(f"{url}/yolo.yaml", folder)
    base = f"/{url.partition('://')[2]}"
    system.pipe(f"{base}/labels/train/a.txt", b"1 0.5 0.5 0.5 0.5\n")
    system.rm(f"{base}/images/train/b.jpg")
    system.pipe(f"{base}/images/train/new.png", (folder / "images/train/e.png").read_bytes())
    second = opened(f"{url}/yolo.yaml", folder)
    names = [os.path.basename(second.path(i)) for i in range(len(second))]
    assert names == ["a.jpg", "c d.png", "e.png", "new.png"] and len(first) == 4
    assert second.labels(0)[0].tolist() == [1]


@pytest.mark.parametrize("change", ["other bytes", "other size", "gone"])
def test_an_image_that_changes_while_training_is_refused(change: str, folder: Path) -> None:
    url, system = in_memory(folder), fsspec.filesystem("memory")
    far = opened(f"{url}/yolo.yaml", folder)
    store = ImageStore(far, imgsz=64)
    (i,) = [i for i in range(len(far)) if "c d" in far.path(i)]  # larger than what was read of it
    place, data = f"/{url.partition('://')[2]}/images/train/c d.png", (folder / "images/train/c d.png").read_bytes()
    if change == "gone":
        system.rm(place)
    else:
        system.pipe(place, data[:-1] + b"x" if change == "other bytes" else data + b"x")
    with pytest.raises(RemoteError, match=rf"{url}/images/train/c d.png (has changed since|is not there any more)"):
        store.load(i)
    if change == "other size":
        opened(f"{url}/yolo.yaml", folder)  # another run lists it anew
        with pytest.raises(RemoteError, match="has changed since the data set was indexed"):
            store.load(i)


def test_faults_that_pass_are_waited_for(folder: Path, server: Server) -> None:
    server.failing = {"/yolo.yaml": [503, 429], "/images/train/": [500], "/images/train/a.jpg": [502, 503]}
    far = opened(f"{server.url}/yolo.yaml", folder)
    assert len(far) == 4 and len(images_of(far)) == 4
    assert not any(server.failing.values())


def test_errors_say_what_to_do(folder: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = folder.parent / "cache"

    def refused(data: str, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            check_dataset(data, splits=("train",), cache_dir=cache)

    server.failing = {"/yolo.yaml": [503] * 9}
    refused(f"{server.url}/yolo.yaml", r"/yolo.yaml: the server refuses \(.*503")
    server.failing = {"/yolo.yaml": [403] * 9}
    refused(f"{server.url}/yolo.yaml", "access was refused .*Credentials are taken from")
    refused(f"{server.url}/yola.yaml", "data=.*/yola.yaml: there is no such file or folder")
    refused("http://127.0.0.1:9/yolo.yaml", r"yolo.yaml does not answer, after 3 tries \(.*")
    with serving(folder, pages=False) as bare:
        refused(f"{bare.url}/yolo.yaml", rf"^{bare.url}/yolo.yaml: train: {bare.url}/.* the server lists no files")
    refused("nothing://a/b.yaml", "there is no nothing://; s3, gs, az, http and")
    refused("memory://nowhere/data.yaml", "there is no such file or folder")
    refused("memory://set/../data.yaml", "is no address of a file or folder")

    def lacks(url: str, **_: Any) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr("fsspec.core.url_to_fs", lacks)
    refused("s3://bucket/data.yaml", r'data.yaml: a package is missing that reads s3://: pip install "eyas\[s3\]"')


def test_no_link_is_made_to_what_lies_elsewhere(folder: Path) -> None:
    url = in_memory(folder)
    with pytest.raises(ValueError, match=f"images=link: no link leads to {url}/images/train/a.jpg. Leave it out"):
        convert(f"{url}/yolo.yaml", "coco", folder.parent / "linked", images="link")
    assert not (folder.parent / "linked").exists()
    convert(f"{url}/yolo.yaml", "coco", folder.parent / "copied")
    copies = sorted((folder.parent / "copied" / "images").rglob("*.*g"))
    assert [file.read_bytes() for file in copies] == [
        (folder / "images/train" / file.name).read_bytes() for file in copies
    ] and len(copies) == len(SIDES)


def test_names_that_lead_elsewhere_are_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("a.jpg", "../b.jpg", "c/../../d.jpg", "e//f.jpg", "g\\h.jpg")
    found = {f"/set/{name}": {"size": 3, "etag": "1"} for name in names} | {"/other/a.jpg": {"size": 3}}
    monkeypatch.setattr(service, "_call", lambda *_, **__: found)
    assert list(service.find("memory://set")) == ["a.jpg"]


def test_versions_are_told_by_tags_and_dates_however_they_are_written() -> None:
    def version(**info: Any) -> int:
        return service._facts({"size": 1, **info}).version

    assert version(ETag='"1a"') == version(etag="1a") == version(ETag='W/"1a"') != version(ETag="2a")
    assert version(ETag="1a", LastModified="now") == version(ETag="1a", LastModified="then")
    assert version(created="2026-01-02T03:04:05+00:00") == version(mtime="2026-01-02 03:04:05+00:00") != version()


# -- places ------------------------------------------------------------------------------------------------------------
def test_urls_and_paths_stand_for_each_other(tmp_path: Path) -> None:
    room = room_for(f"{tmp_path}:1GB")
    for url in ("s3://bucket/set/a b.jpg", "memory://set/c.png", "http://host:80/a%20b/%23c.png"):
        path = to_path(url, room)
        assert is_remote(path) and to_url(path) == url and path.startswith(str(tmp_path))
    assert to_path("http://host/a%20b", room).endswith("/a b")
    base = to_path("s3://bucket/set", room)
    assert to_url(led_to(base, "../other/x")) == "s3://bucket/other/x"
    with pytest.raises(ValueError, match="leads out of s3://bucket/set"):
        led_to(base, "../../../x")
    assert not is_remote("/data/s3/bucket")


def test_a_room_is_a_size_a_folder_or_both(tmp_path: Path, folder: Path) -> None:
    assert parse_room("1.5GB") == (None, 1_500_000_000)
    assert parse_room("/nvme/x") == (Path("/nvme/x"), None)
    assert parse_room("/nvme/x:20MB") == (Path("/nvme/x"), 20_000_000)
    assert room_for(None, tmp_path).folder == tmp_path and room_for(None, tmp_path).limit > 0
    for text in ("0GB", "", " "):
        with pytest.raises(ValueError, match="is a size, a folder or both"):
            parse_room(text)
    with pytest.raises(ValueError, match="remote_cache=1GB has no effect: all of data=.* lies on this machine"):
        opened(str(folder / "yolo.yaml"), folder, remote_cache="1GB")
    far = opened(f"{in_memory(folder)}/yolo.yaml", folder, remote_cache=f"{tmp_path}/fast:1GB")
    assert far.effects()["remote_cache"] == f"{tmp_path}/fast:1000000000B"
    assert str(far.room) == f"up to 1 GB in {tmp_path}/fast/eyas-remote"


def test_a_header_that_does_not_come_ends_the_opening(folder: Path) -> None:
    url = in_memory(folder)
    far = opened(f"{url}/yolo.yaml", folder)
    fsspec.filesystem("memory").rm(f"/{url.partition('://')[2]}/images/train/c d.png")
    with pytest.raises(RemoteError, match="is not there any more"):
        read_header(next(far.path(i) for i in range(4) if "c d" in far.path(i)))
