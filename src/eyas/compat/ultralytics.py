"""The one table of the incumbent's import paths: what stands for each name, and what to use where nothing does.

An entry is a text ``"module:attribute"``, looked up when a script first asks for the name, a `Fresh` that makes a new
value each time it is asked for, or an `Absent`, which says what to use instead. Nothing is imported before it is asked
for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module

ROOT = "ultralytics"


@dataclass(frozen=True)
class Fresh:
    """An entry that is made by the function of this name when it is asked for."""

    make: str


@dataclass(frozen=True)
class Absent:
    """A name that nothing of Eyas stands for.

    Args:
        instead: what to use, as the rest of the sentence "Eyas has no X: ...".
    """

    instead: str


Entry = str | Fresh | Absent
Names = dict[str, Entry]

ONLY_BOXES = Absent("it detects boxes; there are no masks, keypoints, turned boxes or classes of images")
NO_WORDS = Absent("its models know the classes that they were trained for, not words; use YOLO")
OWN_LAYERS = Absent("layers beside those of YOLO26 and RT-DETR are a model class of your own, see docs/trainer.md")
EXPORT = Absent("write YOLO('best.pt').export('onnx'), see docs/export.md")
TRACKED = ("clearml", "comet", "mlflow", "tensorboard", "wb")
A_LOGGER = Absent('train(loggers=["wandb"]) sends a run to trackers, see docs/results.md')
NO_TRACKER = Absent("a callback of your own sends trainer.metrics wherever you like, see docs/trainer.md")
OPTIONS = Absent("its images are augmented by options, such as mosaic=, mixup=, cutmix=, or transforms= of train()")

_RTDETR = "eyas.compat.model:RTDETR"
_YOLO = "eyas.compat.model:YOLO"
_DETECTION_TRAINER = "eyas.compat.trainers:DetectionTrainer"
_RTDETR_TRAINER = "eyas.compat.trainers:RTDETRTrainer"
_PREDICTOR = "eyas.compat.predictor:DetectionPredictor"  # for both families: the model says what its outputs mean
_VALIDATOR = "eyas.compat.validator:DetectionValidator"
_DETECT: Names = {
    "DetectionPredictor": _PREDICTOR,
    "DetectionTrainer": _DETECTION_TRAINER,
    "DetectionValidator": _VALIDATOR,
}
_MODELS: Names = {
    "RTDETR": _RTDETR,
    "YOLO": _YOLO,
    "FastSAM": ONLY_BOXES,
    "NAS": Absent("its models are of the families YOLO26 and RT-DETR"),
    "SAM": ONLY_BOXES,
    "YOLOE": NO_WORDS,
    "YOLOWorld": NO_WORDS,
}
_LOSSES = "eyas.compat.answers.loss"
_METRICS = "eyas.compat.answers.metrics"
_OPS = "eyas.compat.answers.ops"
_PLOTTING = "eyas.compat.answers.plotting"
_TORCH = "eyas.compat.answers.torch_utils"
_CHECKS = "eyas.compat.answers.checks"
_AUGMENT = "eyas.compat.answers.augment"
_DATASET = "eyas.compat.answers.dataset"
_BUILD = "eyas.compat.answers.build"
_LABELS = "eyas.compat.answers.labels"
_TASKS = "eyas.compat.answers.tasks"
_CFG = "eyas.compat.answers.cfg"
_FILES = "eyas.compat.answers.files"


def _all_of(module: str, *names: str) -> Names:
    """Return entries for names that a module calls alike."""
    return {name: f"{module}:{name}" for name in names}


_DATASETS: Names = _all_of(_DATASET, "YOLODataset") | {
    "BaseDataset": f"{_DATASET}:YOLODataset",
    "ClassificationDataset": ONLY_BOXES,
}
_LOADERS: Names = _all_of(_BUILD, "build_dataloader", "build_yolo_dataset") | {
    "load_inference_source": Absent("predict() takes files, videos, streams, arrays and PIL images as they are"),
}
_CALLBACKS: Names = {
    **_all_of("eyas.compat.answers.callbacks", "add_integration_callbacks", "get_default_callbacks"),
    "default_callbacks": Fresh("eyas.compat.answers.callbacks:default_callbacks"),
}
_BLOCKS: Names = {
    **_all_of("eyas.nn", "AIFI", "Attention", "Bottleneck", "C2PSA", "C3k", "C3k2", "Concat", "Conv", "DWConv"),
    **_all_of("eyas.nn", "HGBlock", "HGStem", "LightConv", "MSDeformAttn", "PSABlock", "RepC3", "RepConv"),
    **_all_of("eyas.nn", "ResNetBlock", "ResNetLayer", "SPPF"),
    **_all_of("eyas.models.heads", "DFL", "Detect"),
    "autopad": f"{_TASKS}:autopad",
    **_all_of("eyas.models", "RTDETRDecoder"),
    **dict.fromkeys(("C1", "C2", "C2f", "C2fAttn", "C3", "C3TR", "CBAM", "GhostConv", "SPP", "A2C2f"), OWN_LAYERS),
    **dict.fromkeys(("Classify", "OBB", "Pose", "Segment"), ONLY_BOXES),
    "v10Detect": Absent("the head of YOLO26 needs no suppression either: Detect, with nms=False"),
}

TABLE: Mapping[str, Mapping[str, Entry]] = {
    "ultralytics": {
        **_MODELS,
        "ASSETS": Absent("name an image of your own"),
        "__version__": "eyas.compat.answers.version:__version__",
        "checks": f"{_CHECKS}:checks",
        "download": f"{_FILES}:download",
        "hub": Absent("there is no hub; nothing is ever sent anywhere"),
        "settings": "eyas.compat.answers.settings:settings",
    },
    "ultralytics.cfg": {
        **_all_of(_CFG, "cfg2dict", "get_cfg", "get_save_dir"),
        "entrypoint": Absent("the command is eyas, see docs/cli.md"),
    },
    "ultralytics.data": {**_DATASETS, **_LOADERS},
    "ultralytics.data.augment": {
        **_all_of(_AUGMENT, "Albumentations", "BaseTransform", "Compose", "Format", "LetterBox", "MixUp", "Mosaic"),
        **_all_of(_AUGMENT, "RandomFlip", "RandomHSV", "RandomPerspective", "v8_transforms"),
        "CopyPaste": Absent("its data sets have no polygons to cut objects out by; use mosaic= or mixup="),
        **dict.fromkeys(("CutMix", "RandomLoadText"), OPTIONS),
        **dict.fromkeys(("classify_transforms", "classify_augmentations"), ONLY_BOXES),
    },
    "ultralytics.data.base": {"BaseDataset": f"{_DATASET}:YOLODataset"},
    "ultralytics.data.build": {**_LOADERS, "InfiniteDataLoader": f"{_BUILD}:InfiniteDataLoader"},
    "ultralytics.data.converter": {"convert_coco": "eyas.compat.answers.converter:convert_coco"},
    "ultralytics.data.dataset": _DATASETS,
    "ultralytics.data.utils": {
        **_all_of(_LABELS, "IMG_FORMATS", "VID_FORMATS", "check_det_dataset", "img2label_paths", "verify_image_label"),
        **dict.fromkeys(("check_cls_dataset", "polygon2mask", "polygons2masks"), ONLY_BOXES),
    },
    "ultralytics.engine.exporter": {"Exporter": EXPORT, "export_formats": EXPORT},
    "ultralytics.engine.model": {"Model": _YOLO},
    "ultralytics.engine.predictor": {"BasePredictor": _PREDICTOR},
    "ultralytics.engine.results": {
        **_all_of("eyas.evaluate.results", "Boxes", "Results"),
        **dict.fromkeys(("Keypoints", "Masks", "OBB", "Probs"), ONLY_BOXES),
    },
    "ultralytics.engine.trainer": {"BaseTrainer": "eyas.train:BaseTrainer"},
    "ultralytics.engine.tuner": {"Tuner": Absent("eyas.tune.search(space, model=..., data=...), see docs/tune.md")},
    "ultralytics.engine.validator": {"BaseValidator": _VALIDATOR},
    "ultralytics.models": _MODELS,
    "ultralytics.models.rtdetr": {
        "RTDETR": _RTDETR,
        "RTDETRPredictor": _PREDICTOR,
        "RTDETRTrainer": _RTDETR_TRAINER,
        "RTDETRValidator": _VALIDATOR,
    },
    "ultralytics.models.rtdetr.model": {"RTDETR": _RTDETR},
    "ultralytics.models.rtdetr.predict": {"RTDETRPredictor": _PREDICTOR},
    "ultralytics.models.rtdetr.train": {"RTDETRTrainer": _RTDETR_TRAINER},
    "ultralytics.models.rtdetr.val": {
        "RTDETRDataset": f"{_DATASET}:RTDETRDataset",
        "RTDETRValidator": _VALIDATOR,
    },
    "ultralytics.models.utils.loss": {
        **dict.fromkeys(
            ("DETRLoss", "RTDETRDetectionLoss"),
            Absent("subclass eyas.losses.SetCriterion, and return it from init_criterion()"),
        ),
    },
    "ultralytics.models.utils.ops": dict.fromkeys(
        ("HungarianMatcher", "get_cdn_group"),
        Absent("both are in eyas.assign and eyas.models.rtdetr, with arguments of their own"),
    ),
    "ultralytics.models.yolo": {"YOLO": _YOLO, **dict.fromkeys(("YOLOE", "YOLOWorld"), NO_WORDS)},
    "ultralytics.models.yolo.detect": _DETECT,
    "ultralytics.models.yolo.detect.predict": {"DetectionPredictor": _PREDICTOR},
    "ultralytics.models.yolo.detect.train": {"DetectionTrainer": _DETECTION_TRAINER},
    "ultralytics.models.yolo.detect.val": {"DetectionValidator": _VALIDATOR},
    "ultralytics.models.yolo.model": {"YOLO": _YOLO, "YOLOWorld": NO_WORDS},
    "ultralytics.nn.autobackend": {
        "AutoBackend": Absent(
            "YOLO('best.pt') runs a checkpoint, YOLO('best.onnx') an exported file, see docs/export.md"
        )
    },
    "ultralytics.nn.modules": _BLOCKS,
    "ultralytics.nn.modules.block": _BLOCKS,
    "ultralytics.nn.modules.conv": _BLOCKS,
    "ultralytics.nn.modules.head": _BLOCKS,
    "ultralytics.nn.modules.transformer": _BLOCKS,
    "ultralytics.nn.tasks": {
        "DetectionModel": "eyas.models:DetectionModel",
        "RTDETRDetectionModel": "eyas.models:RTDETRDetectionModel",
        "BaseModel": "eyas.models:Detector",
        **_all_of(_TASKS, "attempt_load_one_weight", "attempt_load_weights", "guess_model_task", "torch_safe_load"),
        **_all_of(_TASKS, "yaml_model_load"),
        "load_checkpoint": f"{_TASKS}:attempt_load_one_weight",
        "parse_model": Absent(
            "DetectionModel('my.yaml') builds a table of layers; for layers of your own, override "
            "get_model() of the trainer, see docs/trainer.md"
        ),
        **dict.fromkeys(("ClassificationModel", "OBBModel", "PoseModel", "SegmentationModel"), ONLY_BOXES),
        "Ensemble": Absent("there are no ensembles; join the results of several models"),
        "WorldModel": NO_WORDS,
    },
    "ultralytics.utils": {
        "ASSETS": Absent("name an image of your own"),
        "DATASETS_DIR": Fresh("eyas.compat.answers.places:datasets_dir"),
        "DEFAULT_CFG": Fresh(f"{_CFG}:default_options"),
        "DEFAULT_CFG_DICT": Fresh(f"{_CFG}:default_dict"),
        "IterableSimpleNamespace": f"{_CFG}:IterableSimpleNamespace",
        "LOCAL_RANK": Fresh("eyas.compat.answers.process:local_rank"),
        "LOGGER": "eyas.log:LOGGER",
        "RANK": Fresh("eyas.compat.answers.process:rank"),
        **_all_of("eyas.compat.answers.places", "LINUX", "MACOS", "NUM_THREADS", "PYTHON_VERSION"),
        **_all_of("eyas.compat.answers.places", "ROOT", "RUNS_DIR", "WINDOWS"),
        "SETTINGS": "eyas.compat.answers.settings:settings",
        "TORCH_VERSION": "torch:__version__",
        "TESTS_RUNNING": Fresh("eyas.compat.answers.places:tests_running"),
        "TQDM": "eyas.compat.answers.console:TQDM",
        **_all_of("eyas.compat.answers.yaml_files", "YAML", "yaml_load", "yaml_print", "yaml_save"),
        "__version__": "eyas.compat.answers.version:__version__",
        "colorstr": "eyas.compat.answers.console:colorstr",
    },
    "ultralytics.utils.autobatch": dict.fromkeys(
        ("autobatch", "check_train_batch_size"),
        Absent("without batch= a size is chosen by recipe and data; eyas plan shows it"),
    ),
    "ultralytics.utils.benchmarks": {
        "ProfileModels": Absent("val() tells milliseconds per image as metrics.speed"),
        "benchmark": Absent("val() tells milliseconds per image as metrics.speed; export() verifies what it writes"),
    },
    "ultralytics.utils.callbacks": _CALLBACKS,
    "ultralytics.utils.callbacks.base": _CALLBACKS,
    "ultralytics.utils.checks": {
        **_all_of(_CHECKS, "check_amp", "check_imgsz", "check_python", "check_requirements", "check_version"),
        **_all_of(_FILES, "check_file", "check_yaml"),
        "check_yolo": f"{_CHECKS}:checks",
        "collect_system_info": f"{_CHECKS}:checks",
        "cuda_device_count": "torch.cuda:device_count",
        "cuda_is_available": "torch.cuda:is_available",
        "print_args": Absent("every run prints its plan, and eyas plan shows it without training"),
    },
    "ultralytics.utils.downloads": {
        "attempt_download_asset": Absent("give the path of a file, or pretrained= with the name of published weights"),
        "download": f"{_FILES}:download",
        "safe_download": f"{_FILES}:safe_download",
    },
    "ultralytics.utils.files": {"WorkingDirectory": "contextlib:chdir", **_all_of(_FILES, "increment_path")},
    "ultralytics.utils.instance": _all_of("eyas.compat.answers.instance", "Instances"),
    "ultralytics.utils.loss": {
        "E2ELoss": "eyas.compat.losses:E2ELoss",
        "v8DetectionLoss": "eyas.compat.losses:v8DetectionLoss",
        **_all_of(_LOSSES, "BboxLoss", "DFLoss", "E2EDetectLoss", "FocalLoss", "VarifocalLoss"),
        **dict.fromkeys(
            ("KeypointLoss", "v8ClassificationLoss", "v8OBBLoss", "v8PoseLoss", "v8SegmentationLoss"), ONLY_BOXES
        ),
    },
    "ultralytics.utils.metrics": {
        **_all_of(_METRICS, "ConfusionMatrix", "DetMetrics", "Metric", "ap_per_class", "bbox_ioa", "bbox_iou"),
        **_all_of(_METRICS, "box_iou", "compute_ap", "smooth"),
        **dict.fromkeys(
            ("ClassifyMetrics", "OBBMetrics", "OKS_SIGMA", "PoseMetrics", "SegmentMetrics", "batch_probiou"), ONLY_BOXES
        ),
        **dict.fromkeys(("kpt_iou", "mask_iou", "probiou"), ONLY_BOXES),
    },
    "ultralytics.utils.ops": {
        **_all_of(_OPS, "Profile", "clip_boxes", "ltwh2xywh", "ltwh2xyxy", "make_divisible", "non_max_suppression"),
        **_all_of(_OPS, "scale_boxes", "xywh2ltwh", "xywh2xyxy", "xywhn2xyxy", "xyxy2ltwh", "xyxy2xywh", "xyxy2xywhn"),
        **dict.fromkeys(
            ("masks2segments", "process_mask", "process_mask_native", "scale_coords", "scale_masks"), ONLY_BOXES
        ),
        **dict.fromkeys(("segment2box", "segments2boxes", "xywhr2xyxyxyxy", "xyxyxyxy2xywhr"), ONLY_BOXES),
    },
    "ultralytics.utils.plotting": {
        **_all_of(_PLOTTING, "Annotator", "Colors", "colors", "plot_images", "plot_labels", "plot_results"),
        "feature_visualization": Absent("register a forward hook on a layer of the model"),
        "save_one_box": Absent("cut the box out of Results.orig_img"),
    },
    "ultralytics.utils.tal": {
        **_all_of("eyas.compat.answers.tal", "TaskAlignedAssigner", "bbox2dist", "dist2bbox", "make_anchors"),
        **dict.fromkeys(("RotatedTaskAlignedAssigner", "dist2rbox"), ONLY_BOXES),
    },
    "ultralytics.utils.torch_utils": {
        **_all_of(_TORCH, "EarlyStopping", "autocast", "copy_attr", "get_flops", "get_num_gradients", "get_num_params"),
        **_all_of(_TORCH, "init_seeds", "intersect_dicts", "is_parallel", "model_info", "model_info_for_loggers"),
        **_all_of(_TORCH, "one_cycle", "select_device", "strip_optimizer", "time_sync"),
        "ModelEMA": "eyas.optim:ModelEMA",
        **_all_of(_TORCH, "TORCH_1_13", "TORCH_1_9", "TORCH_2_0", "TORCH_2_1", "TORCH_2_4"),
        "de_parallel": "eyas.nn.unwrap:unwrap_model",
        "fuse_conv_and_bn": "eyas.nn.conv_norm:fold_norm",
        "smart_inference_mode": "torch:inference_mode",
        "torch_distributed_zero_first": "eyas.compat.answers.process:torch_distributed_zero_first",
        "unwrap_model": "eyas.nn.unwrap:unwrap_model",
    },
}
"""Module -> name -> what stands for it."""

GONE: Mapping[str, Absent] = {
    "ultralytics.data.loaders": Absent("predict() takes files, videos, streams, arrays and PIL images as they are"),
    "ultralytics.hub": Absent("there is no hub; nothing is ever sent anywhere"),
    "ultralytics.models.fastsam": ONLY_BOXES,
    "ultralytics.models.nas": Absent("its models are of the families YOLO26 and RT-DETR"),
    "ultralytics.models.sam": ONLY_BOXES,
    "ultralytics.models.yolo.classify": ONLY_BOXES,
    "ultralytics.models.yolo.obb": ONLY_BOXES,
    "ultralytics.models.yolo.pose": ONLY_BOXES,
    "ultralytics.models.yolo.segment": ONLY_BOXES,
    "ultralytics.models.yolo.world": NO_WORDS,
    "ultralytics.solutions": Absent("count, draw or measure what predict() returns in code of your own"),
    "ultralytics.trackers": Absent("call track(), or use eyas.evaluate.tracking.ByteTrack with boxes of your own"),
    "ultralytics.utils.benchmarks": Absent("val() tells milliseconds per image as metrics.speed"),
    "ultralytics.utils.dist": Absent("train(device=[0, 1]) or processes=2 starts the processes, and ends them"),
    "ultralytics.utils.triton": EXPORT,
    "ultralytics.utils.tuner": Absent("eyas.tune.search(space, model=..., data=...), see docs/tune.md"),
    "ultralytics.yolo": Absent("newer releases have the same in .models.yolo, .engine, .data and .utils; use those"),
    **{
        f"ultralytics.utils.callbacks.{tracker}": A_LOGGER if tracker in TRACKED else NO_TRACKER
        for tracker in (*TRACKED, "dvc", "hub", "neptune", "raytune")
    },
}  # fmt: skip
"""Whole modules that nothing stands for."""

MODULES = frozenset(path.rsplit(".", n)[0] for path in TABLE for n in range(path.count(".") + 1))
"""Every module that can be imported: those of the table, and the packages that they are in."""


def answered(module: str) -> list[str]:
    """Return the names of a module that something stands for."""
    return sorted(name for name, entry in TABLE.get(module, {}).items() if not isinstance(entry, Absent))


def reason(fullname: str) -> Absent | None:
    """Return what to use for a name or module of the table, or one below it, that nothing stands for."""
    while "." in fullname:
        parent, _, name = fullname.rpartition(".")
        entry = TABLE.get(parent, {}).get(name, GONE.get(fullname))
        if isinstance(entry, Absent):
            return entry
        fullname = parent
    return None


def lookup(module: str, name: str) -> object:
    """Return what stands for a name.

    Raises:
        KeyError: nothing does.
    """
    entry = TABLE.get(module, {})[name]
    if isinstance(entry, Absent):
        raise KeyError(name)
    made = isinstance(entry, Fresh)
    home, attribute = (entry.make if isinstance(entry, Fresh) else entry).split(":")
    found = getattr(import_module(home), attribute)
    return found() if made else found
