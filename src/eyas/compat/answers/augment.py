"""``ultralytics.data.augment``: Eyas' augmentation in single steps, for scripts that put their own between them.

A step takes and returns the description of one image: ``img`` (h, w, 3) uint8 BGR, ``cls`` (n, 1), ``instances``
(`Instances`), ``ori_shape`` and ``resized_shape`` (h, w), ``ratio_pad``. Stock training does all of them in one warp,
which is faster and blurs less; what is drawn at random here comes from Python's generator.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, Protocol

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from eyas.augment.apply_cv import BACKGROUND, draw_source
from eyas.augment.color import jitter_hsv
from eyas.augment.geometry import (
    box_areas,
    clip_to,
    keep_rule,
    mosaic_cells,
    perspective_matrix,
    translation,
    warp_boxes,
)
from eyas.augment.letterbox import STRIDE, fit_letterbox, letterbox_into
from eyas.augment.mix import blend_pictures
from eyas.compat.answers.instance import Instances
from eyas.data.decode import resize

Labels = dict[str, Any]
Step = Callable[[Labels], Labels]
BETA = 32.0  # mixup's ratio is drawn from Beta(32, 32)


class Images(Protocol):
    """What mosaic and mixup draw other images from."""

    def __len__(self) -> int: ...

    def get_image_and_label(self, index: int) -> Labels: ...


class BaseTransform:
    """A step that changes the image, the boxes, or both; override what it does."""

    def apply_image(self, labels: Labels) -> None:
        """Change ``labels["img"]``."""

    def apply_instances(self, labels: Labels) -> None:
        """Change ``labels["instances"]`` and ``labels["cls"]``."""

    def __call__(self, labels: Labels) -> Labels:
        """Return the changed description."""
        self.apply_image(labels)
        self.apply_instances(labels)
        return labels


class Compose:
    """Steps one after the other; a list of them may be read and changed as ``transforms``."""

    def __init__(self, transforms: Sequence[Step] | Step) -> None:
        self.transforms: list[Step] = [transforms] if callable(transforms) else list(transforms)

    def __call__(self, data: Labels) -> Labels:
        """Return what all steps make of a description."""
        for step in self.transforms:
            data = step(data)
        return data

    def append(self, transform: Step) -> None:
        """Add a step at the end."""
        self.transforms.append(transform)

    def insert(self, index: int, transform: Step) -> None:
        """Add a step before another."""
        self.transforms.insert(index, transform)

    def tolist(self) -> list[Step]:
        """Return the steps."""
        return self.transforms

    def __getitem__(self, index: int | slice) -> Any:
        return Compose(self.transforms[index]) if isinstance(index, slice) else self.transforms[index]

    def __setitem__(self, index: int, value: Step) -> None:
        self.transforms[index] = value

    def __repr__(self) -> str:
        return f"Compose({', '.join(map(repr, self.transforms))})"


class LetterBox:
    """Fit an image into a rectangle, padding it with grey.

    Args:
        new_shape: (height, width) in pixels, or one side. auto: pad only to the next multiple of ``stride``.
        scale_fill: stretch instead of padding, also as ``scaleFill``. scaleup: enlarge small images.
        center: pad on both sides. padding_value, interpolation: as they are, grey 114 and linear.

    Raises:
        ValueError: another padding or interpolation.
    """

    def __init__(
        self,
        new_shape: int | tuple[int, int] = (640, 640),
        auto: bool = False,
        scale_fill: bool = False,
        scaleup: bool = True,
        center: bool = True,
        stride: int = STRIDE,
        padding_value: int = BACKGROUND,
        interpolation: int = cv2.INTER_LINEAR,
        scaleFill: bool = False,
    ) -> None:
        if padding_value != BACKGROUND:
            raise ValueError(f"padding_value={padding_value}: LetterBox pads with {BACKGROUND} only.")
        if interpolation != cv2.INTER_LINEAR:
            raise ValueError(f"interpolation={interpolation}: LetterBox interpolates by cv2.INTER_LINEAR only.")
        scale_fill = scale_fill or scaleFill
        self.new_shape = (new_shape, new_shape) if isinstance(new_shape, int) else new_shape
        self.auto, self.scale_fill, self.scaleup, self.center, self.stride = auto, scale_fill, scaleup, center, stride

    def __call__(self, labels: Labels | None = None, image: NDArray | None = None) -> Any:
        """Return the changed description, or the image where there is none."""
        picture = labels["img"] if image is None and labels else image
        if picture is None:
            raise ValueError("LetterBox needs labels with an image in them, or image=.")
        target = labels.pop("rect_shape", self.new_shape) if labels else self.new_shape
        shape = picture.shape[:2]
        if self.scale_fill:
            fitted, size, (left, top) = resize(picture, tuple(target)), target, (0, 0)
        else:
            fit = fit_letterbox(shape, target, scale_up=self.scaleup, auto=self.auto, stride=self.stride)
            fitted = np.empty((fit.top + fit.height + fit.bottom, fit.left + fit.width + fit.right, 3), np.uint8)
            letterbox_into(picture, fitted, scale_up=self.scaleup)
            fitted = np.ascontiguousarray(fitted[..., ::-1])  # it was written as RGB
            size, (left, top) = (fit.height, fit.width), (fit.left, fit.top)
        if not self.center:
            fitted, (left, top) = np.roll(fitted, (-top, -left), (0, 1)), (0, 0)  # the grey goes round to the far side
        if not labels:
            return fitted
        gain_h, gain_w = size[0] / shape[0], size[1] / shape[1]
        instances = labels["instances"]
        instances.denormalize(*shape[::-1])
        instances.scale(gain_w, gain_h)
        instances.add_padding(left, top)
        before = labels.get("ratio_pad", (1.0, 1.0))
        ratio_pad = (before[0] * gain_h, before[1] * gain_w), (float(left), float(top))
        return labels | {"img": fitted, "resized_shape": fitted.shape[:2], "ratio_pad": ratio_pad}


class RandomHSV(BaseTransform):
    """Change hue, saturation and value by up to a share each."""

    def __init__(self, hgain: float = 0.5, sgain: float = 0.5, vgain: float = 0.5) -> None:
        self.hgain, self.sgain, self.vgain = hgain, sgain, vgain

    def apply_image(self, labels: Labels) -> None:
        gains = np.array([random.uniform(-1, 1) * gain for gain in (self.hgain, self.sgain, self.vgain)])
        changed = np.empty_like(labels["img"])
        jitter_hsv(labels["img"], gains, changed, bgr=True)
        labels["img"] = changed


class RandomFlip:
    """Mirror with probability ``p``, ``"horizontal"`` or ``"vertical"``.

    Raises:
        ValueError: a probability outside [0, 1], another direction, or ``flip_idx``, which is for keypoints.
    """

    def __init__(self, p: float = 0.5, direction: str = "horizontal", flip_idx: object = None) -> None:
        if not 0 <= p <= 1:
            raise ValueError(f"p={p} must be a probability, between 0 and 1.")
        if flip_idx is not None:
            raise ValueError("flip_idx is for keypoints, which are not supported.")
        if direction not in ("horizontal", "vertical"):
            raise ValueError(f"direction={direction!r} must be 'horizontal' or 'vertical'.")
        self.p, self.direction = p, direction

    def __call__(self, labels: Labels) -> Labels:
        """Return the description, mirrored or not."""
        if random.random() >= self.p:
            return labels
        sideways, instances, (h, w) = self.direction == "horizontal", labels["instances"], labels["img"].shape[:2]
        labels["img"] = cv2.flip(labels["img"], 1 if sideways else 0)
        w, h = (1, 1) if instances.normalized else (w, h)
        instances.fliplr(w) if sideways else instances.flipud(h)
        return labels


class RandomPerspective:
    """Turn, move, scale, shear and tilt an image, and drop boxes of which too little is left.

    Args:
        degrees, translate, scale, shear, perspective: as the options of these names.
        border: added to (top and bottom, left and right) of the output, in pixels; a mosaic brings its own.
        pre_transform: step before, for an image that is no mosaic.
    """

    def __init__(
        self,
        degrees: float = 0.0,
        translate: float = 0.1,
        scale: float | tuple[float, float] = 0.5,
        shear: float = 0.0,
        perspective: float = 0.0,
        border: tuple[int, int] = (0, 0),
        pre_transform: Step | None = None,
    ) -> None:
        self.degrees, self.translate, self.scale, self.shear, self.perspective = (
            *(degrees, translate, scale),
            *(shear, perspective),
        )
        self.border, self.pre_transform = border, pre_transform

    def __call__(self, labels: Labels) -> Labels:
        """Return the changed description; its boxes are corners in pixels."""
        if self.pre_transform is not None and "mosaic_border" not in labels:
            labels = self.pre_transform(labels)
        labels.pop("ratio_pad", None)
        border = labels.pop("mosaic_border", self.border)
        image, instances = labels["img"], labels["instances"]
        height, width = image.shape[:2]
        size = height + 2 * border[0], width + 2 * border[1]
        matrix, zoom = self.draw(width, height, size)
        picture = np.full((*size, 3), BACKGROUND, np.uint8)
        draw_source(picture, image, matrix, np.array([0.0, 0.0, width, height]), (height, width))
        instances.convert_bbox("xyxy")
        instances.denormalize(width, height)
        bounds, in_front = warp_boxes(instances.bboxes, matrix)
        bounds = clip_to(bounds, (0, 0, size[1], size[0]))
        keep = in_front & keep_rule(box_areas(instances.bboxes) * zoom**2, bounds)
        kept = Instances(bounds[keep], bbox_format="xyxy", normalized=False)
        return labels | {"img": picture, "cls": labels["cls"][keep], "instances": kept, "resized_shape": size}

    def draw(self, width: int, height: int, size: tuple[int, int]) -> tuple[NDArray, float]:
        """Return a random matrix (3, 3) from an image to an output of ``size`` (height, width), and its zoom."""
        low, high = self.scale if isinstance(self.scale, tuple | list) else (1 - self.scale, 1 + self.scale)
        zoom = random.uniform(low, high)
        matrix = perspective_matrix(
            size_in=(width, height),
            size_out=1,
            degrees=random.uniform(-self.degrees, self.degrees),
            zoom=zoom,
            shear=(random.uniform(-self.shear, self.shear), random.uniform(-self.shear, self.shear)),
            perspective=(
                random.uniform(-self.perspective, self.perspective),
                random.uniform(-self.perspective, self.perspective),
            ),
            centre=(
                random.uniform(0.5 - self.translate, 0.5 + self.translate) * size[1],
                random.uniform(0.5 - self.translate, 0.5 + self.translate) * size[0],
            ),
        )
        return matrix, zoom


class Mosaic:
    """Put four images around a random point of a square of twice the size, with probability ``p``.

    Args:
        dataset: where the other three come from. imgsz: half the side in pixels. n: 4, the only number.
    """

    def __init__(self, dataset: Images, imgsz: int = 640, p: float = 1.0, n: int = 4) -> None:
        if n != 4:
            raise ValueError(f"n={n}: a mosaic of Eyas has 4 images.")
        self.dataset, self.imgsz, self.p, self.n = dataset, imgsz, p, n
        self.border = (-imgsz // 2, -imgsz // 2)

    def __call__(self, labels: Labels) -> Labels:
        """Return the mosaic that begins with this image, its boxes corners in pixels; or the image as it is."""
        if random.random() > self.p:
            return labels
        others = [self.dataset.get_image_and_label(random.randrange(len(self.dataset))) for _ in range(self.n - 1)]
        parts, size = [labels, *others], 2 * self.imgsz
        centre = (
            random.randint(self.imgsz // 2, size - self.imgsz // 2),
            random.randint(self.imgsz // 2, size - self.imgsz // 2),
        )
        shapes = np.array([part["img"].shape[:2] for part in parts])
        canvas, found = np.full((size, size, 3), BACKGROUND, np.uint8), []
        for part, offset, visible, (h, w) in zip(
            parts, *mosaic_cells(centre, shapes, self.imgsz), shapes.tolist(), strict=True
        ):
            draw_source(canvas, part["img"], translation(*offset), visible, (h, w))
            part["instances"].convert_bbox("xyxy")
            part["instances"].denormalize(w, h)
            part["instances"].add_padding(*offset)
            found.append(part["instances"])
        instances = Instances.concatenate(found)
        instances.clip(size, size)
        good = instances.remove_zero_area_boxes()
        cls = np.concatenate([part["cls"] for part in parts])[good]
        mosaic = {"img": canvas, "cls": cls, "instances": instances, "mosaic_border": self.border}
        return labels | mosaic | {"resized_shape": (size, size)}


class MixUp:
    """Blend two images of one size, with probability ``p``; the boxes of both count in full.

    Args:
        dataset: where the other one comes from. pre_transform: what it goes through before.
    """

    def __init__(self, dataset: Images, pre_transform: Step | None = None, p: float = 0.0) -> None:
        self.dataset, self.pre_transform, self.p = dataset, pre_transform, p

    def __call__(self, labels: Labels) -> Labels:
        """Return the blended description, or the image as it is."""
        if random.random() >= self.p:
            return labels
        other = self.dataset.get_image_and_label(random.randrange(len(self.dataset)))
        other = self.pre_transform(other) if self.pre_transform is not None else other
        picture = labels["img"].copy()
        blend_pictures(picture, other["img"], random.betavariate(BETA, BETA))
        instances = Instances.concatenate([labels["instances"], other["instances"]])
        cls = np.concatenate([labels["cls"], other["cls"]])
        return labels | {"img": picture, "instances": instances, "cls": cls}


class Albumentations:
    """Steps of the package albumentations; without ``transforms`` nothing is done, whether it is installed or not.

    Args:
        p: probability. transforms: its transforms for images with boxes.
    """

    def __init__(self, p: float = 1.0, transforms: Sequence[Any] | None = None) -> None:
        self.p, self.transform = p, None
        if transforms:
            try:
                albumentations = import_module("albumentations")
            except ModuleNotFoundError as error:
                raise ModuleNotFoundError(
                    "these transforms need the package albumentations: pip install albumentations", name=error.name
                ) from error
            boxes = albumentations.BboxParams(format="yolo", label_fields=["class_labels"])
            self.transform = albumentations.Compose(list(transforms), bbox_params=boxes)

    def __call__(self, labels: Labels) -> Labels:
        """Return the changed description."""
        if self.transform is None or random.random() > self.p:
            return labels
        instances, (h, w) = labels["instances"], labels["img"].shape[:2]
        instances.convert_bbox("xywh")
        instances.normalize(w, h)
        new = self.transform(image=labels["img"], bboxes=instances.bboxes, class_labels=labels["cls"])
        instances.update(np.array(new["bboxes"], np.float32))
        cls = np.array(new["class_labels"], np.float32).reshape(-1, 1)
        return labels | {"img": new["image"], "cls": cls}


class Format:
    """Turn a description into tensors: ``img`` (3, h, w) uint8 RGB, ``cls`` (n, 1), ``bboxes`` (n, 4), ``batch_idx``.

    Args:
        bbox_format: form of the boxes. normalize: in shares of the image. batch_idx: add it, zeros (n,).
        bgr: probability of leaving the channels as they are.
    """

    def __init__(
        self,
        bbox_format: str = "xywh",
        normalize: bool = True,
        return_mask: bool = False,
        return_keypoint: bool = False,
        return_obb: bool = False,
        batch_idx: bool = True,
        bgr: float = 0.0,
        **of_masks: Any,
    ) -> None:
        if return_mask or return_keypoint or return_obb:
            raise ValueError("Format gives boxes; masks, keypoints and turned boxes are not supported.")
        self.bbox_format, self.normalize, self.batch_idx, self.bgr = bbox_format, normalize, batch_idx, bgr

    def __call__(self, labels: Labels) -> Labels:
        """Return the description as tensors."""
        image, instances = labels.pop("img"), labels.pop("instances")
        instances.convert_bbox(self.bbox_format)
        height, width = image.shape[:2]
        (instances.normalize if self.normalize else instances.denormalize)(width, height)
        image = image if random.random() < self.bgr else image[..., ::-1]
        count = len(instances)
        labels["img"] = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
        labels["cls"] = torch.from_numpy(np.array(labels["cls"], np.float32).reshape(count, 1))
        labels["bboxes"] = torch.from_numpy(instances.bboxes.copy())
        return labels | ({"batch_idx": torch.zeros(count)} if self.batch_idx else {})


def v8_transforms(dataset: Images, imgsz: int, hyp: Any, stretch: bool = False) -> Compose:
    """Return the steps of training up to `Format`, with the options in ``hyp``.

    Args:
        dataset: where mosaic and mixup take other images from. imgsz: side of the output in pixels.
        hyp: mosaic, mixup, degrees, translate, scale, shear, perspective, hsv_h, hsv_s, hsv_v, flipud, fliplr.
        stretch: images are square already.

    Raises:
        ValueError: ``hyp`` asks for cutmix or copy_paste, which are no single steps.
    """
    for name in ("cutmix", "copy_paste"):
        if getattr(hyp, name, 0):
            raise ValueError(
                f"{name}={getattr(hyp, name)} is not one of these steps: set it to 0, or use build_yolo_dataset(), "
                "which does what train() does."
            )
    geometric = Compose(
        [
            Mosaic(dataset, imgsz, p=hyp.mosaic),
            RandomPerspective(
                degrees=hyp.degrees,
                translate=hyp.translate,
                scale=hyp.scale,
                shear=hyp.shear,
                perspective=hyp.perspective,
                pre_transform=None if stretch else LetterBox((imgsz, imgsz)),
            ),
        ]
    )
    return Compose(
        [
            geometric,
            MixUp(dataset, pre_transform=geometric, p=hyp.mixup),
            Albumentations(),
            RandomHSV(hyp.hsv_h, hyp.hsv_s, hyp.hsv_v),
            RandomFlip(hyp.flipud, "vertical"),
            RandomFlip(hyp.fliplr, "horizontal"),
        ]
    )
