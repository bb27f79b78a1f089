"""What only a GPU can show: training in bfloat16 and float16, steps that never wait, agreement with the CPU."""

from __future__ import annotations

import signal
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from eyas.checkpoint import load_checkpoint
from eyas.data.upload import Upload
from eyas.launch.interrupt import Interrupted
from eyas.models import DetectionModel, network_from
from eyas.train import DetectionTrainer

if not torch.cuda.is_available():
    pytest.skip("these tests need a CUDA device", allow_module_level=True)

pytestmark = pytest.mark.gpu
Options = Callable[..., dict[str, Any]]


@pytest.fixture
def options(digits_tiny: Path, tmp_path: Path) -> Options:
    """Return options of a small training of yolo26n on the first GPU, with changes."""

    def make(**changes: Any) -> dict[str, Any]:
        base = {"model": "yolo26n", "data": str(digits_tiny), "imgsz": 128, "batch": 16, "epochs": 3, "workers": 0}
        quiet = {"device": "0", "plots": False, "verbose": False, "project": str(tmp_path / "runs")}
        return base | quiet | changes

    return make


@contextmanager
def started(options: dict[str, Any]) -> Iterator[tuple[DetectionTrainer, list[Any]]]:
    """Yield a trainer in its first epoch, as its own loop would have it, and the batches of that epoch."""
    trainer = DetectionTrainer(overrides=options)
    with trainer.prepared():
        trainer.send_progress()
        trainer.model.train()
        yield trainer, list(trainer.train_loader)


@contextmanager
def no_waiting() -> Iterator[None]:
    """Inside the block every operation that makes the host wait for the GPU is an error."""
    torch.cuda.synchronize()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Synchronization debug mode is a prototype")  # and an error in our tests
            torch.cuda.set_sync_debug_mode("error")
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@contextmanager
def exact_float32() -> Iterator[None]:
    """Turn TF32 off inside the block: it keeps 10 bits, too few to compare with a CPU."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def without_objects(batch: Any) -> Any:
    """Return the batch as one of background images."""
    empty = {key: batch[key][:0] for key in ("cls", "bboxes", "batch_idx")}
    return batch | empty | {"max_objects": 0}


def snapshot(trainer: DetectionTrainer) -> dict[str, torch.Tensor]:
    """Return a copy of the trainable weights."""
    return {name: p.detach().clone() for name, p in trainer.model.named_parameters()}


@pytest.mark.parametrize("deterministic", [True, False])
def test_bf16_training_learns(options: Options, deterministic: bool) -> None:
    trainer = DetectionTrainer(
        overrides=options(epochs=8, amp="bf16", lr0=0.01, mosaic=0.0, deterministic=deterministic)
    )
    result = trainer.train()
    losses = [row["train/cls_loss"] for row in result.history]
    assert trainer.amp_dtype is torch.bfloat16
    assert losses[-1] < 0.8 * losses[0]
    assert {p.dtype for p in trainer.model.parameters()} == {torch.float32}
    assert {p.device.type for p in trainer.model.parameters()} == {"cuda"}


@pytest.mark.parametrize("deterministic", [True, False])
@pytest.mark.parametrize("optimizer", ["MuSGD", "AdamW"])
@pytest.mark.parametrize("objects", [True, False])
def test_a_training_step_never_waits_for_the_gpu(
    options: Options, optimizer: str, objects: bool, deterministic: bool
) -> None:
    with started(options(amp="bf16", optimizer=optimizer, deterministic=deterministic)) as (trainer, batches):
        batch = batches[2] if objects else without_objects(batches[2])
        for warm in (batches[0], batches[1], batch):
            trainer.train_batch(warm)
        before = snapshot(trainer)
        with no_waiting():
            trainer.train_batch(batch)
        assert trainer.running_losses()["cls_loss"] > 0
        moved = [name for name, p in trainer.model.named_parameters() if not torch.equal(before[name], p)]
        assert len(moved) > len(before) / 2


def test_fp16_steps_behind_a_scaler(options: Options) -> None:
    """A step whose gradients overflowed is skipped and the scale halved; training goes on."""
    with started(options(amp="fp16")) as (trainer, batches):
        assert trainer.scaler.is_enabled()
        before = snapshot(trainer)
        for batch in batches * 4:  # the first scale, 65536, may overflow a few times and be halved
            trainer.train_batch(batch)
        assert trainer.scaler.get_scale() > 1
        assert all(torch.isfinite(p).all() for p in trainer.model.parameters())
        assert sum(not torch.equal(before[n], p) for n, p in trainer.model.named_parameters()) > len(before) / 2


def test_fp16_does_not_wait_with_a_fused_optimizer(options: Options) -> None:
    """GradScaler leaves the question whether a gradient overflowed to a fused optimizer, which answers on the GPU."""
    with started(options(amp="fp16", optimizer="AdamW", deterministic=False)) as (trainer, batches):
        for batch in batches[:3]:
            trainer.train_batch(batch)
        with no_waiting():
            trainer.train_batch(batches[3])


def test_fp16_waits_only_in_the_step_of_another_optimizer(options: Options) -> None:
    """MuSGD has no such answer, so GradScaler asks, once per step, by design."""
    with started(options(amp="fp16", optimizer="MuSGD", nbs=64, deterministic=False)) as (trainer, batches):
        assert trainer.accumulate == 4, "so that the first batch takes no step"
        for batch in batches[:3]:
            trainer.train_batch(batch)
        with no_waiting():
            trainer.train_batch(batches[3])


@pytest.mark.parametrize("end2end", [True, False])
def test_cpu_and_gpu_agree(end2end: bool) -> None:
    torch.manual_seed(0)
    model = DetectionModel("yolo26n", nc=10, verbose=False).eval()
    model.set_head_attr(end2end=end2end)
    images = torch.rand(2, 3, 128, 128)
    with exact_float32(), torch.no_grad():
        decoded, raw = model(images)
        on_gpu, raw_gpu = model.cuda()(images.cuda())
    for branch in ("one2many", "one2one"):
        for part in ("boxes", "scores"):
            torch.testing.assert_close(raw_gpu[branch][part].cpu(), raw[branch][part], rtol=1e-3, atol=1e-3)
    if end2end:  # equal scores may come in another order: compare what does not depend on it
        torch.testing.assert_close(on_gpu[..., 4].cpu(), decoded[..., 4], rtol=1e-3, atol=1e-3)
    else:
        torch.testing.assert_close(on_gpu.cpu(), decoded, rtol=1e-3, atol=1e-2)  # atol: a hundredth of a pixel


def test_cpu_and_gpu_agree_on_loss_and_gradients(options: Options) -> None:
    """Assignment included: the same weights and batch on both."""
    with started(options(amp=False)) as (trainer, batches), exact_float32():
        model = trainer.model
        batch = trainer.preprocess_batch(batches[0])
        twin = network_from({"yaml": model.yaml, "nc": model.nc, "names": model.names, "model": model.state_dict()})
        twin.train().args = trainer.args
        value, _ = model(batch)
        value.sum().backward()
        expected, _ = twin({k: v.cpu() if isinstance(v, torch.Tensor) else v for k, v in batch.items()})
        expected.sum().backward()
        torch.testing.assert_close(value.cpu(), expected, rtol=1e-3, atol=1e-3)
        mine, theirs = (torch.nn.utils.get_total_norm([p.grad for p in m.parameters()]) for m in (model, twin))
        torch.testing.assert_close(mine.cpu(), theirs, rtol=1e-2, atol=0.0)


def test_a_checkpoint_of_a_gpu_loads_on_a_cpu(options: Options) -> None:
    trainer = DetectionTrainer(overrides=options(epochs=1, amp="bf16"))
    result = trainer.train()
    checkpoint = load_checkpoint(result.last)
    assert {v.device.type for v in checkpoint["model"].values()} == {"cpu"}
    model = network_from(checkpoint)
    detections, _ = model(torch.rand(1, 3, 128, 128))
    assert detections.shape[-1] == 6 and torch.isfinite(detections).all()
    for name, value in trainer.ema.ema.state_dict().items():  # type: ignore[union-attr]
        torch.testing.assert_close(model.state_dict()[name], value.cpu(), rtol=0, atol=0, msg=name)


def test_a_run_resumes_on_a_gpu(options: Options) -> None:
    """Stopped between two batches, so that weights, moments and the sums of losses all come back to the GPU."""

    def press_ctrl_c(trainer: Any) -> None:
        trainer.interrupted.handle(signal.SIGINT, None)

    first = DetectionTrainer(overrides=options(epochs=3, amp="bf16", optimizer="AdamW"))
    first.add_callback("on_fit_epoch_end", press_ctrl_c)
    with pytest.raises(Interrupted):
        first.train()
    again = DetectionTrainer(overrides={"resume": str(first.last), "device": "0", "verbose": False, "plots": False})
    assert again.train().epochs == 3
    moments = [value for state in again.optimizer.state.values() for value in state.values()]
    assert {value.device.type for value in moments} == {"cuda"}, "counters on the host would be read in every step"


def test_workers_deliver_pinned_batches(options: Options) -> None:
    with started(options(workers=2)) as (trainer, batches):
        tensors = [v for v in batches[0].values() if isinstance(v, torch.Tensor) and v.numel()]
        assert trainer.train_loader.workers == 2
        assert tensors and all(t.is_pinned() for t in tensors)
        assert batches[0]["img"].is_contiguous(memory_format=torch.channels_last)
        with no_waiting():
            moved = trainer.preprocess_batch(batches[0])
        assert moved["img"].is_cuda and moved["img"].is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(moved["img"].cpu(), batches[0]["img"].float() / 255, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("pinned", [True, False])
def test_a_batch_arrives_whole_beside_a_busy_gpu(pinned: bool) -> None:
    """What is copied on a stream of its own may be used at once, and its memory is not given away meanwhile."""
    device = torch.device("cuda:0")
    upload, busy = Upload(device), torch.rand(4096, 4096, device=device)
    for number in range(20):
        images = torch.full((64, 3, 256, 256), number, dtype=torch.uint8)
        for _ in range(5):
            busy = torch.tanh(busy @ busy)
        there = upload({"img": images.pin_memory() if pinned else images, "im_file": ("a", "b")})
        read = there["img"].float()
        del there
        upload({"img": torch.full_like(images, 200)})  # would take the memory that was just given back
        assert read.eq(number).all()


def test_workers_change_nothing_on_a_gpu(options: Options) -> None:
    losses = []
    for workers in (0, 2):
        result = DetectionTrainer(overrides=options(epochs=2, workers=workers, amp=False)).train()
        losses.append([row["train/cls_loss"] for row in result.history])
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
