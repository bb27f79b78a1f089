import os
import random
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from eyas.augment import AugmentSettings
from eyas.data import loader
from eyas.data.dataset import EvalDataset, TrainDataset
from eyas.data.errors import SampleError
from eyas.data.index import build_index
from eyas.data.loader import START_METHOD, build_eval_loader, build_train_loader, default_workers, shield_workers
from eyas.data.sampler import SampleKey
from eyas.data.store import ImageStore

IMGSZ = 64
COUNT = 21
EVERYTHING = AugmentSettings(mixup=0.3, cutmix=0.3, degrees=5, shear=2, flipud=0.3, bgr=0.2)
TENSORS = ("img", "cls", "bboxes", "batch_idx", "index")
LISTS = ("im_file", "ori_shape", "resized_shape", "ratio_pad", "max_objects")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """21 small images of several shapes with 0 to 4 boxes each."""
    root = tmp_path_factory.mktemp("set")
    (root / "images").mkdir()
    (root / "labels").mkdir()
    rng = np.random.default_rng(0)
    for i in range(COUNT):
        h, w = [(48, 64), (64, 40), (64, 64), (90, 120), (200, 100)][i % 5]
        image = cv2.resize(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8), (w, h))
        cv2.imwrite(str(root / "images" / f"{i:02d}.png"), image)
        rows = [
            f"{rng.integers(0, 3)} {x:.4f} {y:.4f} {bw:.4f} {bh:.4f}\n"
            for x, y, bw, bh in rng.uniform(0.2, 0.4, (i % 5, 4))
        ]
        (root / "labels" / f"{i:02d}.txt").write_text("".join(rows))
    return root


@pytest.fixture(scope="module")
def index(folder):
    return build_index([folder / "images"], names={0: "a", 1: "b", 2: "c"}, cache_dir=folder / "cache")


class CountingStore(ImageStore):
    """Counts how often each image is asked for."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.loads = []

    def load(self, i):
        self.loads.append(i)
        return super().load(i)


def train_data(index, settings=EVERYTHING, *, transforms=None, seed=5, store=None):
    return TrainDataset(
        index, store or ImageStore(index, imgsz=IMGSZ), imgsz=IMGSZ, settings=settings, seed=seed, transforms=transforms
    )


class Noting:
    """A transform that leaves a file for each image that it sees."""

    def __init__(self, folder):
        self.folder = folder

    def __call__(self, image, boxes, labels):
        handle, _ = tempfile.mkstemp(dir=self.folder)
        os.close(handle)
        return image, boxes, labels


def collect(dataset, *, epoch=0, closed=False, batch=4, workers=0, **options):
    """All batches of one epoch; tensors are copied out of shared memory."""
    with build_train_loader(dataset, batch=batch, workers=workers, seed=9, **options) as loader:
        loader.set_epoch(epoch, mosaic_closed=closed)
        return [{k: v.clone() if isinstance(v, torch.Tensor) else v for k, v in b.items()} for b in loader]


def assert_same(first, second):
    assert len(first) == len(second)
    for a, b in zip(first, second, strict=True):
        assert a.keys() == b.keys() == set(TENSORS + LISTS)
        assert all(torch.equal(a[name], b[name]) for name in TENSORS)
        assert all(a[name] == b[name] for name in LISTS)


def by_index(batches):
    """Image, classes and boxes of every sample, by dataset index."""
    found = {}
    for batch in batches:
        for i, index in enumerate(batch["index"].tolist()):
            rows = batch["batch_idx"] == i
            found[index] = (batch["img"][i], batch["cls"][rows], batch["bboxes"][rows])
    return found


# --- one process or many, straight or resumed -------------------------------------------------------------------------


def test_workers_change_nothing(index):
    dataset = train_data(index)
    assert_same(collect(dataset, workers=0), collect(dataset, workers=2))


def test_spawned_workers_change_nothing_either(index, monkeypatch):
    """The way workers start where there is no fork: everything a worker needs must pickle."""
    monkeypatch.setattr("eyas.data.loader.START_METHOD", "spawn")
    dataset = train_data(index, store=ImageStore(index, imgsz=IMGSZ, cache="ram"), transforms=[invert])
    assert_same(collect(dataset, workers=1), collect(dataset))


@pytest.mark.parametrize(("batch", "world"), [(16, 2), (10, 3), (21, 2), (4, 4)])
def test_ranks_change_nothing(index, batch, world):
    dataset = train_data(index)
    whole = collect(dataset, batch=batch)
    shares = [collect(dataset, batch=batch, rank=rank, world_size=world) for rank in range(world)]
    for step, expected in enumerate(whole):
        parts = [share[step] for share in shares]
        if len(expected["img"]) < world:
            continue  # the last batch has one image: every rank repeats it
        assert torch.equal(torch.cat([part["img"] for part in parts]), expected["img"])
        assert torch.equal(torch.cat([part["bboxes"] for part in parts]), expected["bboxes"])
        assert torch.equal(torch.cat([part["cls"] for part in parts]), expected["cls"])
        assert [file for part in parts for file in part["im_file"]] == expected["im_file"]


def test_an_epoch_depends_on_seed_and_number_alone(index):
    dataset = train_data(index)
    with build_train_loader(dataset, batch=4, workers=2, seed=9) as loader:
        for epoch in range(3):  # the resumed run below starts at epoch 2
            loader.set_epoch(epoch)
            straight = [{k: v.clone() if isinstance(v, torch.Tensor) else v for k, v in b.items()} for b in loader]
    assert_same(straight, collect(dataset, epoch=2))
    other = by_index(collect(dataset, epoch=1))
    assert not any(torch.equal(other[i][0], image) for i, (image, _, _) in by_index(straight).items())
    reseeded = by_index(collect(train_data(index, seed=6), epoch=2))
    assert not any(torch.equal(reseeded[i][0], image) for i, (image, _, _) in by_index(straight).items())


def test_stopping_in_the_middle_of_an_epoch_leaves_no_trace(index):
    dataset = train_data(index)
    with build_train_loader(dataset, batch=4, workers=2, seed=9) as loader:
        next(iter(loader))
        loader.set_epoch(1)
        again = [{k: v.clone() if isinstance(v, torch.Tensor) else v for k, v in b.items()} for b in loader]
    assert_same(again, collect(dataset, epoch=1))


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_reading_ahead_changes_nothing(index, workers):
    """The expected epoch is taken over, another one is read anew; an epoch of few batches may end while it is read."""
    dataset = train_data(index)
    for batch in (4, 30):
        with build_train_loader(dataset, batch=batch, workers=workers, seed=9) as loader:
            for epoch, expected, closed in ((0, 1, False), (1, 2, False), (2, 3, True), (3, 7, True), (5, None, True)):
                loader.set_epoch(epoch, mosaic_closed=closed)
                if expected is not None:
                    loader.expect(expected, mosaic_closed=closed)
                seen = [{k: v.clone() if isinstance(v, torch.Tensor) else v for k, v in b.items()} for b in loader]
                assert_same(seen, collect(dataset, epoch=epoch, closed=closed, batch=batch))


def test_workers_have_the_next_epoch_ready_when_it_begins(index, tmp_path):
    """Nobody asks for a batch of it, and its first batch is made."""
    dataset = train_data(index, transforms=[Noting(tmp_path)])
    with build_train_loader(dataset, batch=30, workers=1, seed=9) as loader:
        loader.expect(1, mosaic_closed=False)
        images = sum(len(batch["img"]) for batch in loader)
        deadline = time.monotonic() + 60
        while len(list(tmp_path.iterdir())) < 2 * images and time.monotonic() < deadline:
            time.sleep(0.01)
        assert len(list(tmp_path.iterdir())) == 2 * images
        loader.set_epoch(1)
        assert sum(len(batch["img"]) for batch in loader) == images
        assert len(list(tmp_path.iterdir())) == 2 * images


def test_the_global_random_numbers_are_left_alone(index):
    dataset = train_data(index, transforms=[lambda image, boxes, labels: (np.random.permutation(image), boxes, labels)])  # noqa: NPY002
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    collect(dataset, workers=0)
    collect(dataset, workers=2)
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1:] == (random.getstate(), np.random.get_state()[1].tolist())  # noqa: NPY002


def test_closed_mosaic_shows_one_image_and_keeps_the_rest(index):
    dataset = train_data(index)
    key = SampleKey(0, 3, 7, tuple(range(16)), mosaic_closed=True)
    params = dataset.params(key)
    assert params.sources.tolist() == [7] and params.hsv.any()
    assert len(dataset.params(replace(key, mosaic_closed=False)).sources) >= 4


# --- what a batch holds -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 2])
def test_layout_and_types_of_a_batch(index, workers):
    batches = collect(train_data(index), batch=8, workers=workers)
    assert [len(batch["img"]) for batch in batches] == [8, 8, 5]
    batch = batches[0]
    boxes = len(batch["cls"])
    assert batch["img"].dtype == torch.uint8 and batch["img"].shape == (8, 3, IMGSZ, IMGSZ)
    assert batch["img"].is_contiguous(memory_format=torch.channels_last)
    assert (
        batch["cls"].shape == (boxes, 1)
        and batch["bboxes"].shape == (boxes, 4)
        and batch["batch_idx"].shape == (boxes,)
    )
    assert {batch[name].dtype for name in ("cls", "bboxes", "batch_idx")} == {torch.float32}
    assert batch["max_objects"] == torch.bincount(batch["batch_idx"].long()).max()
    assert [Path(file).stem for file in batch["im_file"]] == [f"{i:02d}" for i in batch["index"].tolist()]
    assert batch["ori_shape"] == [tuple(index.shapes[i].tolist()) for i in batch["index"].tolist()]
    low, high = batch["bboxes"][:, :2] - batch["bboxes"][:, 2:] / 2, batch["bboxes"][:, :2] + batch["bboxes"][:, 2:] / 2
    assert low.min() >= -1e-6 and high.max() <= 1 + 1e-6


def test_an_image_untouched_by_augmentation_keeps_its_pixels_and_boxes(index):
    nothing = AugmentSettings(mosaic=0, translate=0, scale=0, fliplr=0, hsv_h=0, hsv_s=0, hsv_v=0)
    (image, cls, boxes) = by_index(collect(train_data(index, nothing)))[12]  # 64 x 64, two boxes
    expected = cv2.imread(index.path(12))[..., ::-1]
    assert np.array_equal(image.permute(1, 2, 0).numpy(), expected)
    assert np.array_equal(cls[:, 0].numpy(), index.labels(12)[0])
    assert np.allclose(boxes.numpy(), index.labels(12)[1], atol=1e-6)


def test_a_batch_without_any_box(index):
    background = [i for i in range(COUNT) if not len(index.labels(i)[0])]
    dataset = train_data(index, AugmentSettings(mosaic=0))
    batch = dataset.make_batch([SampleKey(0, p, i, (i,)) for p, i in enumerate(background)])
    assert batch["cls"].shape == (0, 1) and batch["bboxes"].shape == (0, 4) and batch["batch_idx"].shape == (0,)
    assert batch["max_objects"] == 0 and len(batch["img"]) == len(background)


def test_a_set_smaller_than_the_batch(index):
    batches = collect(train_data(index), batch=100, workers=2)
    assert [len(batch["img"]) for batch in batches] == [COUNT]


@pytest.mark.parametrize("batch", [4, 8, 16])
def test_an_image_is_loaded_about_once_in_an_epoch(index, batch):
    store = CountingStore(index, imgsz=IMGSZ)
    collect(train_data(index, AugmentSettings(mixup=0.5), store=store), batch=batch)
    last_window = COUNT % 16  # the short last window reaches back to be full
    assert COUNT <= len(store.loads) <= COUNT + 16 - last_window


def test_each_image_once_where_windows_tile_the_set(folder):
    index = build_index([folder / "images"], names={0: "a", 1: "b", 2: "c"}, fraction=16, cache_dir=folder / "cache")
    store = CountingStore(index, imgsz=IMGSZ)
    collect(train_data(index, AugmentSettings(mixup=0.5), store=store), batch=16)
    assert sorted(store.loads) == list(range(16))


def test_ram_cache_gives_the_same(index):
    cached = ImageStore(index, imgsz=IMGSZ, cache="ram")
    assert_same(collect(train_data(index, store=cached), workers=2), collect(train_data(index)))
    assert cached.cached == COUNT  # filled by the workers, seen here


# --- user transforms --------------------------------------------------------------------------------------------------


def invert(image, boxes, labels):
    return 255 - image, boxes, labels


def noisy(image, boxes, labels):
    noise = np.random.randint(0, 20, image.shape) + random.randint(0, 9) + int(torch.randint(9, ()))  # noqa: NPY002
    return (image // 2 + noise).astype(np.uint8), boxes, labels


def test_transforms_come_last_and_in_order(index):
    plain, changed = collect(train_data(index)), collect(train_data(index, transforms=[invert]))
    for a, b in zip(plain, changed, strict=True):
        assert torch.equal(255 - a["img"], b["img"]) and torch.equal(a["bboxes"], b["bboxes"])
    order = []
    transforms = [lambda *sample: order.append("first") or sample, lambda *sample: order.append("second") or sample]
    train_data(index, transforms=transforms).make_batch([SampleKey(0, 0, 0, (0, 1))])
    assert order == ["first", "second"]


def test_transforms_get_pixels_boxes_and_labels_and_may_change_them(index):
    seen = {}

    def half(image, boxes, labels):
        seen.update(image=image.copy(), boxes=boxes.copy(), labels=labels.copy())
        return image, np.concatenate((boxes, [[-10, 0, 200, 30], [5, 5, 5, 9]])), np.append(labels, [2, 2])

    nothing = AugmentSettings(mosaic=0, translate=0, scale=0, fliplr=0, hsv_h=0, hsv_s=0, hsv_v=0)
    batch = train_data(index, nothing, transforms=[half]).make_batch([SampleKey(0, 0, 12, (12,))])
    assert seen["image"].shape == (IMGSZ, IMGSZ, 3) and np.array_equal(
        seen["image"], cv2.imread(index.path(12))[..., ::-1]
    )
    assert seen["labels"].dtype == np.int64 and seen["boxes"].dtype == np.float32 and len(seen["boxes"]) == 2
    assert batch["bboxes"].shape == (3, 4)  # two, the clipped one, not the empty one
    assert np.allclose(batch["bboxes"][2] * IMGSZ, (32, 15, 64, 30)) and batch["cls"][2] == 2


def test_random_transforms_do_not_depend_on_workers(index):
    dataset = train_data(index, transforms=[noisy])
    first = collect(dataset, workers=0)
    assert_same(first, collect(dataset, workers=2))
    assert not torch.equal(first[0]["img"], collect(dataset, epoch=1)[0]["img"])


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (lambda i, b, c: None, "must return"),
        (lambda i, b, c: (i.astype(np.float32), b, c), "uint8"),
        (lambda i, b, c: (i[:10], b, c), "shape"),
        (lambda i, b, c: (torch.from_numpy(i), b, c), "Tensor"),
        (lambda i, b, c: (i, b[:, :3], c), r"\(n, 4\)"),
        (lambda i, b, c: (i, b * np.nan, c), "NaN"),
        (lambda i, b, c: (i, b, c[1:]), "one label for each box"),
        (lambda i, b, c: (i, b, c + 0.5), "class numbers"),
        (lambda i, b, c: 1 / 0, "ZeroDivisionError"),
    ],
)
def test_a_wrong_transform_is_named_with_the_image(index, result, message):
    dataset = train_data(index, AugmentSettings(mosaic=0), transforms=[result])
    with pytest.raises(SampleError, match=message) as caught:
        dataset.make_batch([SampleKey(0, 0, 14, (14,))])
    assert "lambda" in str(caught.value) and index.path(14) in str(caught.value)


def test_something_that_is_no_function_is_refused_at_once(index):
    with pytest.raises(ValueError, match="not callable"):
        train_data(index, transforms=["blur"])


# --- errors and the life of workers -----------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 2])
def test_a_failing_sample_is_named_without_a_wall_of_text(index, workers):
    dataset = train_data(index, AugmentSettings(mosaic=0), transforms=[lambda i, b, c: 1 / 0])
    with build_train_loader(dataset, batch=2, workers=workers, seed=0) as loader:
        with pytest.raises(SampleError, match=r"\d\d\.png failed: ZeroDivisionError") as caught:
            list(loader)
        assert "Traceback" not in str(caught.value) and str(caught.value).count("\n") == 0
        assert "Traceback" in caught.value.__notes__[0]


def children():
    ours = subprocess.run(
        ["ps", "--ppid", str(os.getpid()), "-o", "pid=,comm="], capture_output=True, text=True, check=False
    )
    return {line.split()[0] for line in ours.stdout.splitlines() if "ps" not in line.split()[1]}


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts processes with ps")
def test_close_leaves_no_process_behind(index):
    before = children()
    loader = build_train_loader(train_data(index), batch=4, workers=2, seed=0)
    next(iter(loader))
    assert len(children() - before) == 2
    loader.close()
    loader.close()
    assert children() - before == set()
    with pytest.raises(RuntimeError, match="closed"):
        next(iter(loader))


SCRIPT = """
    import signal, sys, time
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job starts with it ignored
    from eyas.augment import AugmentSettings
    from eyas.data.dataset import TrainDataset
    from eyas.data.index import build_index
    from eyas.data.loader import build_train_loader
    from eyas.data.store import ImageStore

    folder = sys.argv[1]
    index = build_index([folder + "/images"], names={0: "a", 1: "b", 2: "c"}, cache_dir=folder + "/cache")
    dataset = TrainDataset(index, ImageStore(index, imgsz=64), imgsz=64, settings=AugmentSettings())
    loader = build_train_loader(dataset, batch=4, workers=2, seed=0)
    batches = iter(loader)
    next(batches)
    print(*[process.pid for process in loader._loader._iterator._workers], flush=True)
    time.sleep(60)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="POSIX signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_workers_end_with_the_process(folder, number):
    """After Ctrl-C at once and silently; after kill -9 as soon as they notice (torch looks every 5 s)."""
    parent = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(SCRIPT), str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    workers = [int(pid) for pid in parent.stdout.readline().split()]
    assert len(workers) == 2, parent.communicate()[1]
    if number == signal.SIGINT:
        os.killpg(parent.pid, number)  # what a terminal does: to the whole group
    else:
        parent.send_signal(number)
    _, errors = parent.communicate(timeout=30)
    end = time.monotonic() + 15
    while any(alive(pid) for pid in workers) and time.monotonic() < end:
        time.sleep(0.1)
    assert not any(alive(pid) for pid in workers)
    if number == signal.SIGINT:
        assert errors.count("Traceback") == 1 and "KeyboardInterrupt" in errors


def alive(pid):
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().rsplit(")", 1)[1].split()[0] != "Z"


# --- evaluation -------------------------------------------------------------------------------------------------------


def eval_batches(index, *, workers=0, rank=0, world_size=1, batch=4, **options):
    dataset = EvalDataset(index, ImageStore(index, imgsz=IMGSZ), imgsz=IMGSZ, batch=batch, **options)
    with build_eval_loader(dataset, workers=workers, rank=rank, world_size=world_size) as loader:
        return [{k: v.clone() if isinstance(v, torch.Tensor) else v for k, v in b.items()} for b in loader]


def test_evaluation_workers_and_ranks_change_nothing(index):
    whole = eval_batches(index)
    assert_same(whole, eval_batches(index, workers=2))
    assert_same(whole, [batch for rank in range(3) for batch in eval_batches(index, rank=rank, world_size=3)])
    assert sorted(i for batch in whole for i in batch["index"].tolist()) == list(range(COUNT))


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """70 images without labels, whose aspects h / w run from 0.16 to 5: two rectangles' worth and a rest."""
    root = tmp_path_factory.mktemp("many")
    rng = np.random.default_rng(0)
    for i in range(70):
        h, w = (40, 80 + 5 * (35 - i)) if i < 35 else (40 + 5 * (i - 35), 40)
        cv2.imwrite(str(root / f"{i:02d}.png"), rng.integers(0, 256, (h, w, 3), dtype=np.uint8))
    return build_index([root], names={0: "a"}, cache_dir=root / "cache", split="val")


def test_rectangles_hold_32_neighbours_in_the_order_of_aspects(many):
    batches = eval_batches(many, batch=64)
    aspects = [h / w for batch in batches for h, w in batch["ori_shape"]]
    assert aspects == sorted(aspects) and len(aspects) == 70
    # 40/255 to 40/100, at most 26 of 64 px high; 40/95 to 180/40, which only a square holds; 185/40 to 210/40
    assert [(len(batch["im_file"]), tuple(batch["img"].shape[2:])) for batch in batches] == [
        (32, (32, 64)),
        (32, (64, 64)),
        (6, (64, 32)),
    ]


@pytest.mark.parametrize("batch", [1, 5, 16, 32, 64])
def test_what_an_image_is_padded_to_does_not_depend_on_the_batch(many, batch):
    def pixels(batch):
        return {int(i): image for b in eval_batches(many, batch=batch) for i, image in zip(b["index"], b["img"])}

    reference, found = pixels(24), pixels(batch)
    assert found.keys() == reference.keys() and len({image.shape for image in found.values()}) == 3
    assert all(torch.equal(image, reference[i]) for i, image in found.items())
    assert max(len(b["im_file"]) for b in eval_batches(many, batch=batch)) <= batch


@pytest.mark.parametrize(("pad", "side"), [(0.0, 128), (0.5, 160)])
def test_square_images_are_evaluated_at_imgsz_unless_padded(tmp_path, pad, side):
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((50, 50, 3), np.uint8))
    (tmp_path / "a.txt").write_text("0 .5 .5 .5 .5")
    index = build_index([tmp_path], names={0: "a"}, cache_dir=tmp_path / "cache")
    dataset = EvalDataset(index, ImageStore(index, imgsz=128), imgsz=128, pad=pad, batch=4)
    assert dataset.batches[0][1] == (side, side)


@pytest.mark.parametrize(
    ("shapes", "expected"),
    [
        ([(480, 640)] * 3, (480, 640)),
        ([(320, 640), (480, 640)], (480, 640)),
        ([(640, 320)], (640, 320)),
        ([(320, 640), (640, 320)], (640, 640)),
    ],
)
def test_rect_shapes_of_the_spec(shapes, expected):
    from eyas.data.dataset import rect_shape

    aspects = np.array([h / w for h, w in shapes])
    assert rect_shape(aspects, 640, 32, 0.0) == expected
    assert rect_shape(aspects, 640, 32, 0.5) == tuple(side + 32 for side in expected)


def test_rounding_errors_cost_no_padding():
    """23 strides wide at this size; as a product of ratios it is 736.0000000000001 px."""
    from eyas.data.dataset import rect_shape

    assert rect_shape(np.array([1280 / 736]), 1280, 32, 0.0) == (1280, 736)


@pytest.mark.parametrize("rect", [True, False])
def test_evaluation_boxes_go_back_to_the_original(index, rect):
    for batch in eval_batches(index, rect=rect):
        height, width = batch["img"].shape[2:]
        assert rect or (height, width) == (64, 64)
        for i, number in enumerate(batch["index"].tolist()):
            (gain_h, gain_w), (left, top) = batch["ratio_pad"][i]
            centre = batch["bboxes"][batch["batch_idx"] == i] * torch.tensor([width, height, width, height])
            h, w = batch["ori_shape"][i]
            back = (
                (centre - torch.tensor([left, top, 0, 0]))
                / torch.tensor([gain_w, gain_h, gain_w, gain_h])
                / torch.tensor([w, h, w, h])
            )
            assert np.allclose(back, index.labels(number)[1], atol=1e-5)


def test_stretched_images_fill_the_square(index):
    store = ImageStore(index, imgsz=IMGSZ, stretch=True)
    dataset = EvalDataset(index, store, imgsz=IMGSZ, batch=8)
    batch = next(iter(build_eval_loader(dataset, workers=0)))
    assert batch["img"].shape[2:] == (64, 64) and all(pad == (0.0, 0.0) for _, pad in batch["ratio_pad"])
    assert np.allclose(batch["bboxes"], np.concatenate([index.labels(i)[1] for i in range(8)]), atol=1e-6)
    trained = TrainDataset(index, store, imgsz=IMGSZ, settings=AugmentSettings(mosaic=0))
    assert trained.params(SampleKey(0, 0, 0, (0,))).shapes.tolist() == [[64, 64]]


def test_sizes_that_do_not_fit_together_are_refused(index):
    store = ImageStore(index, imgsz=IMGSZ)
    with pytest.raises(ValueError, match="imgsz=64"):
        EvalDataset(index, store, imgsz=128, batch=4)


def test_each_sample_draws_its_own_numbers_from_every_generator(index):
    """Python's, NumPy's and torch's: other numbers for another sample, the same for the same one."""
    drawn = []

    def draw(image, boxes, labels):
        drawn.append((random.random(), np.random.random(), float(torch.rand(()))))  # noqa: NPY002
        return image, boxes, labels

    data = train_data(index, transforms=[draw])
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()  # noqa: NPY002
    for position in (0, 1, 2, 0):
        data.make_batch([SampleKey(0, position, 3, (3, 4))])
    assert drawn[0] == drawn[3] and all(len(set(column[:3])) == 3 for column in zip(*drawn, strict=True))
    assert random.getstate() == before[0] and np.random.get_state()[1].tolist() == before[1]  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), before[2])


class Numbers:
    """Four items of a user's own data set."""

    start = 0

    def __len__(self) -> int:
        return 4

    def __getitem__(self, i: int) -> int:
        return self.start + i


def start_at_ten(_: int) -> None:
    torch.utils.data.get_worker_info().dataset.start = 10  # type: ignore[union-attr]


@pytest.mark.skipif(START_METHOD != "fork", reason="starts workers by fork")
def test_workers_of_a_users_loader_outlive_a_request_to_stop() -> None:
    loader = DataLoader(Numbers(), num_workers=1, multiprocessing_context="fork", worker_init_fn=start_at_ten)
    for _ in range(2):
        shield_workers(loader)  # twice does no harm
    batches = iter(loader)
    assert next(batches).item() == 10, "the user's own start is kept"
    for number in (signal.SIGTERM, signal.SIGINT):
        os.kill(batches._workers[0].pid, number)
    assert [batch.item() for batch in batches] == [11, 12, 13]


@pytest.mark.parametrize(
    ("device", "cores", "processes", "workers"),
    [
        ("cuda", 16, 1, 15),
        ("cuda", 64, 1, 16),
        ("cuda", 16, 8, 1),
        ("cuda", 1, 1, 1),
        ("cpu", 2, 1, 1),
        ("cpu", 16, 2, 4),
    ],
)
def test_workers_leave_a_core_to_each_process_that_feeds_a_gpu(monkeypatch, device, cores, processes, workers):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(cores)), raising=False)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
    assert default_workers(None, torch.device(device)) == workers
    assert default_workers(3, torch.device(device)) == 3


@pytest.mark.skipif(os.name != "posix", reason="there is no niceness")
def test_workers_give_way_to_a_process_that_feeds_a_gpu():
    def niceness(gives_way):
        reader, writer = os.pipe()
        if not (child := os.fork()):
            try:
                loader._init_worker(0, parent=os.getppid(), gives_way=gives_way)
                os.write(writer, str(os.nice(0)).encode())  # below 0 where the tests come before others
            finally:
                os._exit(0)  # or an error would go on as a second process of tests
        os.close(writer)
        os.waitpid(child, 0)
        return int(os.read(reader, 9))

    assert niceness(True) == niceness(False) + loader.STEP_BACK
