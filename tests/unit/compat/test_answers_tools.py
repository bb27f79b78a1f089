"""Options, files, checks, helpers of models and processes under the incumbent's names."""

from __future__ import annotations

import json
import logging
import math
import pickle
import random
from copy import copy, deepcopy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

import eyas
from eyas import dist
from eyas.checkpoint import load_checkpoint, save_checkpoint
from eyas.compat.answers import callbacks, cfg, checks, console, converter, files, places, process, tasks, torch_utils
from eyas.compat.answers.settings import settings
from eyas.compat.answers.version import __version__
from eyas.compat.answers.yaml_files import YAML, yaml_load, yaml_save
from eyas.config import TrainOptions, UnknownOptionError
from eyas.config.errors import OptionError
from eyas.models import DetectionModel


# -- processes ---------------------------------------------------------------------------------------------------------
def test_rank_is_minus_one_alone_and_true_in_company(monkeypatch: pytest.MonkeyPatch) -> None:
    assert process.rank() == -1 and process.rank() in {-1, 0}
    monkeypatch.setattr(dist, "world_size", lambda: 2)
    monkeypatch.setattr(dist, "rank", lambda: 1)
    monkeypatch.setattr(dist, "local_rank", lambda: 0)
    assert process.rank() == 1 and process.local_rank() == 0
    monkeypatch.setattr(dist, "rank", lambda: 0)
    assert process.rank() == 0


def test_rank_is_the_receivers_own_after_a_journey(monkeypatch: pytest.MonkeyPatch) -> None:
    sent = pickle.dumps((process.rank(), process.local_rank()))
    monkeypatch.setattr(dist, "world_size", lambda: 4)
    monkeypatch.setattr(dist, "rank", lambda: 3)
    monkeypatch.setattr(dist, "local_rank", lambda: 1)
    assert pickle.loads(sent) == (3, 1)


@pytest.mark.parametrize(("number", "order"), [(-1, "block wait"), (0, "block wait"), (1, "wait block")])
def test_the_first_process_goes_first(number: int, order: str, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(dist, "barrier", lambda: told.append("wait"))
    with process.torch_distributed_zero_first(number):
        told.append("block")
    assert " ".join(told) == order


# -- the terminal ------------------------------------------------------------------------------------------------------
def test_colorstr() -> None:
    assert console.colorstr("x") == "\033[34m\033[1mx\033[0m"
    assert console.colorstr("red", "x") == "\033[31mx\033[0m"
    assert console.colorstr("bright_green", "underline", "a b") == "\033[92m\033[4ma b\033[0m"
    with pytest.raises(ValueError, match=r"'reed' is no colour or style\. Did you mean 'red'"):
        console.colorstr("reed", "x")


def test_a_bar_goes_through_what_it_is_given(capsys: pytest.CaptureFixture[str]) -> None:
    bar = console.TQDM(range(3), desc="reading", unit="it", bar_format="{l_bar}")
    assert list(bar) == [0, 1, 2] and (bar.n, bar.total, len(bar)) == (3, 3, 3)
    moved = console.TQDM(total=10, initial=2)
    moved.set_description("x")
    moved.set_postfix(loss=1)
    moved.update(3)
    moved.close()
    moved.close()
    assert moved.n == 5 and capsys.readouterr().out == ""
    assert console.TQDM(x for x in "ab").total is None
    with pytest.raises(ValueError, match="nothing to go through"):
        list(console.TQDM(total=3))


# -- options -----------------------------------------------------------------------------------------------------------
def test_default_options_have_nothing_typed() -> None:
    options = cfg.default_options()
    assert not any(options.is_typed(name) for name, _ in options)
    assert cfg.default_dict()["imgsz"] == options.imgsz
    space = cfg.IterableSimpleNamespace(a=1, b=2)
    assert list(space) == [("a", 1), ("b", 2)] and space.get("c", 3) == 3


def test_defaults_are_read_and_copies_are_changed() -> None:
    options, values = cfg.default_options(), cfg.default_dict()
    options.degrees, values["shear"] = 0.0, 0.0
    with pytest.raises(OptionError, match=r"DEFAULT_CFG\.degrees = 12\.3 has no effect.*Pass degrees=12\.3 to"):
        options.degrees = 12.3
    with pytest.raises(OptionError, match=r"unknown option 'degress'"):
        options.degress = 12.3
    for change in (lambda: values.__setitem__("shear", 4.5), lambda: values.update(shear=4.5)):
        with pytest.raises(OptionError, match=r"\['shear'\] = 4\.5 has no effect.*Pass shear=4\.5 to train"):
            change()
    assert (options.degrees, values["shear"]) == (0, 0)
    for copied in (copy(options), deepcopy(options), pickle.loads(pickle.dumps(cfg.get_cfg(options)))):
        copied.degrees = 12.3
        assert copied.degrees == 12.3 and copied.is_typed("degrees")
    assert pickle.loads(pickle.dumps(options)) == options
    for other in (values.copy(), dict(values), {**values}, deepcopy(values), pickle.loads(pickle.dumps(values))):
        other["shear"] = 4.5
    assert cfg.get_cfg({**values, "shear": 4.5}).shear == 4.5


def test_options_of_files_mappings_and_namespaces(tmp_path: Path) -> None:
    (tmp_path / "o.yaml").write_text("epochs: 7\nimgsz: 96\n")
    for given in (tmp_path / "o.yaml", {"epochs": 7, "imgsz": 96}, SimpleNamespace(epochs=7, imgsz=96)):
        options = cfg.get_cfg(given, {"imgsz": 64})
        assert (options.epochs, options.imgsz, options.get("none", 5)) == (7, 64, 5)
    before = TrainOptions(epochs=7)
    assert cfg.get_cfg(before, SimpleNamespace(imgsz=64)).imgsz == 64 != before.imgsz
    assert cfg.get_cfg().epochs == TrainOptions().epochs
    everything = cfg.get_cfg(cfg.default_dict(), TrainOptions(epochs=7))
    assert everything.epochs == 7 and not everything.is_typed("iou")
    assert cfg.cfg2dict(TrainOptions(epochs=7)) == {"epochs": 7} == cfg.cfg2dict(SimpleNamespace(epochs=7))
    with pytest.raises(UnknownOptionError, match="epochs"):
        cfg.get_cfg({"epocs": 3})


def test_the_folder_of_a_run_is_told_and_not_made(tmp_path: Path) -> None:
    options = TrainOptions(project=str(tmp_path))
    assert cfg.get_save_dir(options, "exp") == tmp_path / "exp" and not (tmp_path / "exp").exists()


def test_settings_may_be_set_to_what_they_are(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EYAS_CACHE", str(tmp_path))
    settings.update({"wandb": False, "datasets_dir": tmp_path / "datasets"})
    settings.update(sync=False)
    settings["tensorboard"] = False
    settings.reset()
    assert settings["runs_dir"] == "runs" and settings.get("nothing") is None and "mlflow" in dict(settings)
    with pytest.raises(
        ValueError, match=r"wandb=True has no effect here, where it is False: send a run there with train\(loggers"
    ):
        settings.update(wandb=True)
    with pytest.raises(ValueError, match="project="):
        settings["runs_dir"] = "/elsewhere"
    with pytest.raises(KeyError, match="Did you mean 'datasets_dir'"):
        settings.update(dataset_dir="x")


def test_the_version_begins_with_the_one_that_is_answered_and_tells_who_answers() -> None:
    assert tuple(map(int, __version__.split(".")[:3])) >= (8, 4, 0)
    assert __version__ > "8.3.0" and __version__.endswith(f"+eyas.{eyas.__version__}")
    assert checks.check_version(__version__, ">=8.3,<9")
    packaging = pytest.importorskip("packaging.version")
    assert packaging.parse("8.4.190") <= packaging.parse(__version__) < packaging.parse("8.4.191")


def test_places(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert (places.ROOT / "__init__.py").samefile(eyas.__file__)
    assert places.LINUX + places.MACOS + places.WINDOWS <= 1 and places.tests_running()
    monkeypatch.setenv("EYAS_CACHE", str(tmp_path))
    assert places.datasets_dir() == tmp_path / "datasets"


def test_default_callbacks_are_none_and_stay_so(caplog: pytest.LogCaptureFixture) -> None:
    found = callbacks.default_callbacks()
    assert not found["on_train_end"] and "on_fit_epoch_end" in found
    with pytest.raises(ValueError, match="model.add_callback"):
        found["on_train_end"].append(print)
    own = callbacks.get_default_callbacks()
    own["on_train_end"].append(print)
    assert not callbacks.get_default_callbacks()["on_train_end"]
    with caplog.at_level(logging.INFO, "eyas"):
        callbacks.add_integration_callbacks(None)
    assert "no trackers" in caplog.text


# -- files -------------------------------------------------------------------------------------------------------------
def test_yaml_goes_there_and_back(tmp_path: Path) -> None:
    file = tmp_path / "new" / "data.yaml"
    yaml_save(file, {"path": tmp_path, "names": {0: "Straße", 1: "b"}, "shape": (1, 2)}, header="# mine\n")
    assert file.read_text(encoding="utf-8").startswith("# mine\npath:")
    expected = {"path": str(tmp_path), "names": {0: "Straße", 1: "b"}, "shape": [1, 2]}
    assert yaml_load(file) == YAML.load(file) == expected
    assert yaml_load(file, append_filename=True)["yaml_file"] == str(file)
    file.write_text("a: 1\nb: [\n")
    with pytest.raises(ValueError, match=r"data\.yaml, line 3: no valid YAML"):
        yaml_load(file)
    with pytest.raises(ValueError, match="not named like a YAML"):
        yaml_load("data.txt")


def test_names_count_on_from_two(tmp_path: Path) -> None:
    first = files.increment_path(tmp_path / "exp", mkdir=True)
    second = files.increment_path(tmp_path / "exp", mkdir=True)
    assert (first.name, second.name) == ("exp", "exp2") and second.is_dir()
    assert files.increment_path(tmp_path / "exp", sep="-").name == "exp-2"
    assert files.increment_path(tmp_path / "exp", exist_ok=True) == first
    (tmp_path / "v1.0").mkdir()
    (tmp_path / "a.txt").touch()
    assert files.increment_path(tmp_path / "v1.0").name == "v1.02"
    assert files.increment_path(tmp_path / "a.txt").name == "a2.txt"


def test_files_are_found_or_the_nearest_is_named(tmp_path: Path) -> None:
    (tmp_path / "data.yaml").touch()
    assert files.check_yaml(tmp_path / "data.yaml") == str(tmp_path / "data.yaml")
    with pytest.raises(FileNotFoundError, match=r"Did you mean 'data\.yaml'"):
        files.check_file(tmp_path / "dta.yaml")
    with pytest.raises(ValueError, match=r"must end in \.csv"):
        files.check_file(tmp_path / "data.yaml", ".csv")
    assert files.check_file(tmp_path / "none.yaml", hard=False) == "" == files.check_file("")


def test_what_is_there_is_not_fetched_and_archives_are_unpacked(tmp_path: Path) -> None:
    import zipfile

    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        archive.writestr("set/a.txt", "hello")
    files.download("https://example.invalid/set.zip?x=1", dir=tmp_path, delete=True)
    assert (tmp_path / "set" / "a.txt").read_text() == "hello" and not (tmp_path / "set.zip").exists()
    assert files.safe_download("https://example.invalid/x", tmp_path / "set" / "a.txt") == tmp_path / "set" / "a.txt"
    with pytest.raises(FileExistsError, match="is there already"):
        files.download("https://example.invalid/a.txt", tmp_path / "set", exist_ok=False)
    with pytest.raises(ValueError, match=r"no http\(s\) address"):
        files.download("ftp://example.invalid/x.pt", dir=tmp_path)


def test_coco_becomes_text(tmp_path: Path) -> None:
    content = {
        "images": [{"id": 7, "file_name": "a.jpg", "width": 200, "height": 100}],
        "categories": [{"id": 3, "name": "dog"}, {"id": 1, "name": "cat"}],
        "annotations": [
            {"image_id": 7, "category_id": 3, "bbox": [20, 10, 40, 50]},
            {"image_id": 7, "category_id": 1, "bbox": [0, 0, 0, 50]},
            {"image_id": 7, "category_id": 1, "bbox": [0, 0, 200, 100], "iscrowd": 1},
        ],
    }
    (tmp_path / "instances_val.json").write_text(json.dumps(content))
    converter.convert_coco(tmp_path, tmp_path / "out")
    assert (tmp_path / "out" / "labels" / "val" / "a.txt").read_text() == "1 0.2 0.35 0.2 0.5\n"
    converter.convert_coco(tmp_path, tmp_path / "kept", cls91to80=False)
    assert (tmp_path / "kept" / "labels" / "val" / "a.txt").read_text().startswith("2 ")
    with pytest.raises(ValueError, match="no annotations"):
        converter.convert_coco(tmp_path / "out")


# -- checks ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("current", "required", "holds"),
    [
        *(("8.3.0", "8.3", True), ("8.10.0", "8.9", True), ("8.2.9", "8.3.0", False), ("1.0", "", True)),
        *(("2.1.0+cu121", ">=1.8,<2.2", True), ("2.2", ">=1.8,<2.2", False), ("2.2.0", "==2.2", True)),
        *(("2.2", "!=2.2.0", False), ("3.11.7", "<=3.11.7", True), ("torch", ">=2", True), ("torch", "<2", False)),
    ],
)
def test_versions_are_compared_by_their_numbers(current: str, required: str, holds: bool) -> None:
    assert checks.check_version(current, required) is holds


def test_broken_rules_are_told(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ModuleNotFoundError, match=r"torch >=99 is needed, and 2\..* is here\. Update it"):
        checks.check_version("torch", ">=99", hard=True, msg="Update it")
    assert checks.check_version("1.0", "<0.9", name="x", verbose=True) is False and "x <0.9 is needed" in caplog.text
    assert checks.check_requirements(["numpy>=1.20", "torch"]) and checks.check_python("3.8")
    assert not checks.check_requirements(("no-such-package>=2", "torch<1"))
    assert 'pip install "no-such-package>=2" "torch<1"' in caplog.text
    assert checks.check_requirements("no-such-package", exclude=["no-such-package"])


def test_requirements_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "requirements.txt"
    file.write_text("# needed\nnumpy>=1.20  # arrays\n\ntorch\n")
    assert checks.check_requirements(file)
    file.write_text("numpy<1\n")
    assert not checks.check_requirements(file)


def test_sizes_are_rounded_up_to_the_stride(caplog: pytest.LogCaptureFixture) -> None:
    assert checks.check_imgsz(640) == 640 and caplog.text == ""
    assert checks.check_imgsz(641) == 672 and "multiple of the stride 32" in caplog.text
    assert checks.check_imgsz([100, 200], stride=torch.tensor([8, 64])) == [128, 256]
    assert checks.check_imgsz([320, 640], max_dim=1) == 640 and checks.check_imgsz(640, min_dim=2) == [640, 640]
    assert checks.check_imgsz(1, floor=64) == 64
    with pytest.raises(ValueError, match="side in pixels"):
        checks.check_imgsz("640")  # type: ignore[arg-type]


def test_the_system_is_told(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "eyas"):
        checks.checks()
    assert f"Eyas {eyas.__version__}" in caplog.text and torch.__version__ in caplog.text
    assert not checks.check_amp(nn.Linear(1, 1))


# -- models ------------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def model(tiny_model: Path) -> DetectionModel:
    torch.manual_seed(0)
    return DetectionModel(str(tiny_model), nc=3, verbose=False)


def test_parameters_and_operations_are_counted(model: DetectionModel, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "eyas")
    wrapped = nn.DataParallel(model)
    layers, parameters, gradients, gflops = torch_utils.model_info(wrapped, imgsz=[64, 64])
    assert f"{layers:,} layers, {parameters:,} parameters, {gradients:,} with gradient" in caplog.text
    assert parameters == sum(math.prod(p.shape) for p in model.parameters()) == torch_utils.get_num_params(model)
    assert gradients == torch_utils.get_num_gradients(model)
    assert torch_utils.is_parallel(wrapped) and not torch_utils.is_parallel(model)
    trainer = SimpleNamespace(model=wrapped, args=SimpleNamespace(imgsz=128), validator=None)
    told = torch_utils.model_info_for_loggers(trainer)
    assert told["model/parameters"] == parameters and told["model/GFLOPs"] == pytest.approx(4 * gflops, rel=0.05)
    with pytest.raises(TypeError, match="Linear is not a detector"):
        torch_utils.get_flops(nn.Linear(1, 1))
    with pytest.raises(ValueError, match="square"):
        torch_utils.get_flops(model, (64, 96))


def test_devices_seeds_and_casts(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "eyas"):
        assert torch_utils.select_device("cpu") == torch.device("cpu") and "cpu" in caplog.text
    assert torch_utils.select_device(torch.device("cpu"), verbose=False).type == "cpu"
    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.deterministic
    drawn = []
    for _ in range(2):
        torch_utils.init_seeds(3)
        drawn.append((random.random(), np.random.rand(), torch.rand(1).item()))  # noqa: NPY002
    assert drawn[0] == drawn[1]
    torch_utils.init_seeds(0, deterministic=True)
    assert torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(before[0])
    torch.backends.cudnn.deterministic = before[1]
    with torch_utils.autocast(True, "cpu"):
        assert torch.is_autocast_enabled("cpu")
    with torch_utils.autocast(False, "cpu"):
        assert not torch.is_autocast_enabled("cpu")
    assert 0 <= torch_utils.time_sync() - torch_utils.time_sync() + 1 <= 1


def test_one_cycle_is_half_a_cosine() -> None:
    rate = torch_utils.one_cycle(1.0, 0.1, 10)
    for x in (0, 3, 5, 10):
        assert rate(x) == pytest.approx((1 - math.cos(x * math.pi / 10)) / 2 * (0.1 - 1.0) + 1.0)
    assert torch_utils.one_cycle(0, 4, 2)(1) == pytest.approx(2)


def test_early_stopping() -> None:
    stopper = torch_utils.EarlyStopping(patience=2)
    assert [stopper(epoch, fitness) for epoch, fitness in enumerate([0.1, 0.3, 0.2, None, 0.3])] == [
        *(False, False, False, False, True)
    ]
    assert stopper.best_epoch == 1 and stopper.possible_stop
    assert not any(torch_utils.EarlyStopping(patience=0)(epoch, 0.0) for epoch in range(50))


def test_tensors_and_attributes_that_fit_are_taken(model: DetectionModel) -> None:
    mine = {"a": torch.ones(2), "b": torch.ones(3), "c.x": torch.ones(1)}
    other = {"a": torch.zeros(2), "b": torch.zeros(2), "c.x": torch.zeros(1)}
    assert set(torch_utils.intersect_dicts(mine, other)) == {"a", "c.x"}
    assert set(torch_utils.intersect_dicts(mine, other, exclude=["c"])) == {"a"}
    target = SimpleNamespace(a=0)
    torch_utils.copy_attr(target, SimpleNamespace(a=1, b=2, c=3, _d=4), exclude=["c"])
    assert vars(target) == {"a": 1, "b": 2}


def test_a_checkpoint_is_stripped_and_opened(model: DetectionModel, tmp_path: Path) -> None:
    file = tmp_path / "last.pt"
    whole = {
        "eyas": {"format": 1, "version": "0", "torch": "2"},
        "model": dict(model.state_dict()),
        "yaml": model.yaml,
        "nc": 3,
        "names": {0: "a", 1: "b", 2: "c"},
        "state": {
            "model": dict(model.state_dict()),
            "optimizer": {"state": {}, "param_groups": []},
            "scaler": {},
            "amp": "fp32",
            "updates": 0,
            "epochs": 1,
            "step": 0,
            "meter": None,
            "best_fitness": None,
            "best_files": {},
            "frozen": [],
            "freeze_layer_names": [],
            "plan": {},
            "data": {},
            "trainer": "",
            "history": [],
            "elapsed": 0.0,
            "callbacks": {},
            "rng": torch.get_rng_state(),
        },
        "train_args": {},
        "train_sources": {},
        "train_metrics": {},
        "fitness": None,
        "epoch": 1,
    }
    save_checkpoint(whole, file)
    kept = torch_utils.strip_optimizer(file, str(tmp_path / "small.pt"), updates={"note": "mine"})
    small = load_checkpoint(tmp_path / "small.pt")
    assert "state" in load_checkpoint(file) and small.keys() == kept.keys() == whole.keys() - {"state"} | {"note"}
    torch_utils.strip_optimizer(file)
    assert "state" not in load_checkpoint(file)
    opened, checkpoint = tasks.attempt_load_one_weight(file)
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(opened(image)[0], model.eval()(image)[0])
    assert checkpoint["nc"] == 3 and not opened.training and tasks.attempt_load_weights([file], fuse=True).is_fused()
    assert tasks.torch_safe_load(file)[1] == str(file)
    foreign = load_checkpoint(file)
    foreign["eyas"]["read_from"] = "another library"
    save_checkpoint(foreign, file)
    with pytest.raises(ValueError, match="stays as it is"):
        torch_utils.strip_optimizer(file)
    with pytest.raises(ValueError, match="no ensembles"):
        tasks.attempt_load_weights([file, file])


def test_tables_of_models() -> None:
    assert (tasks.autopad(3), tasks.autopad(3, d=2), tasks.autopad([1, 5]), tasks.autopad(7, 0)) == (1, 2, [0, 2], 0)
    assert tasks.yaml_model_load("yolo26n.yaml")["backbone"] and tasks.guess_model_task(None) == "detect"
