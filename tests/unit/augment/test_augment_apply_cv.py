import cv2
import numpy as np
import pytest
import torch

from eyas.augment import AugmentSettings, place_labels, sample_params
from eyas.augment.apply_cv import BACKGROUND, draw_picture, draw_source, render
from eyas.augment.geometry import loaded_shapes, mosaic_cells, translation
from eyas.augment.params import MAIN

SIZE = 96
SHAPES = np.array([[480, 640], [640, 480], [100, 100], [333, 500], [64, 128]])
PLAIN = {"hsv_h": 0.0, "hsv_s": 0.0, "hsv_v": 0.0}


def smooth_image(h, w, seed):
    """An image without sharp edges, so that two ways of interpolating it hardly differ."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return cv2.resize(coarse, (w, h), interpolation=cv2.INTER_CUBIC)


IMAGES = [smooth_image(h, w, i) for i, (h, w) in enumerate(loaded_shapes(SHAPES, SIZE).tolist())]


def load(index):
    return IMAGES[index]


def draw(settings, position, index=0):
    return sample_params(
        settings, SHAPES, size=SIZE, seed=0, epoch=0, position=position, index=index, partners=range(5)
    )


def reference_mosaic(params, centre, matrix):
    """The plain way: compose the 2S x 2S canvas, then warp it."""
    canvas = np.full((2 * SIZE, 2 * SIZE, 3), BACKGROUND, np.uint8)
    inside = np.zeros((2 * SIZE, 2 * SIZE), np.uint8)
    offsets, visible = mosaic_cells(centre, params.shapes, SIZE)
    for k, index in enumerate(params.sources.tolist()):
        x1, y1, x2, y2 = visible[k].astype(int)
        x, y = (offsets[k] + visible[k, :2]).astype(int)
        canvas[y : y + y2 - y1, x : x + x2 - x1] = IMAGES[index][y1:y2, x1:x2]
        inside[y + 1 : y + y2 - y1 - 1, x + 1 : x + x2 - x1 - 1] = 255
    covered = inside
    warp = translation(-0.5, -0.5) @ matrix @ translation(0.5, 0.5)
    picture = cv2.warpPerspective(canvas, warp, (SIZE, SIZE), borderValue=(BACKGROUND,) * 3)
    interior = cv2.warpPerspective(covered, warp, (SIZE, SIZE)) == 255
    outside = cv2.warpPerspective(cv2.dilate(covered, np.ones((5, 5))), warp, (SIZE, SIZE)) == 0
    return picture, interior, outside


@pytest.mark.parametrize(
    "settings",
    [
        AugmentSettings(),
        AugmentSettings(fliplr=1.0, flipud=1.0),
        AugmentSettings(degrees=30, shear=10),
        AugmentSettings(degrees=10, perspective=0.001, fliplr=1.0),
    ],
    ids=["upright", "flipped", "slanted", "perspective"],
)
def test_mosaic_in_one_warp_is_the_warped_canvas(settings):
    for position in range(25):
        params = draw(settings, position)
        centre = mosaic_centre(params)
        offsets, _ = mosaic_cells(centre, params.shapes, SIZE)
        matrix = params.matrices[0] @ translation(*-offsets[0])
        expected, interior, outside = reference_mosaic(params, centre, matrix)
        picture = draw_picture(params, MAIN, load)
        difference = np.abs(picture.astype(int) - expected)[interior]
        # Coordinates are rounded to 1/32 px by OpenCV, from another origin in each way.
        assert difference.size == 0 or (difference.max() <= 12 and difference.mean() < 1.0)
        assert (picture[outside] == BACKGROUND).all()


def mosaic_centre(params):
    """Read the centre back from what the canvas cut off; where it cut nothing, any centre that cuts nothing will do."""
    heights, widths = params.shapes.T.tolist()
    v = params.visible.tolist()
    x = [widths[k] - v[k][0] for k in (0, 2) if v[k][0] > 0] + [
        2 * SIZE - v[k][2] for k in (1, 3) if v[k][2] < widths[k]
    ]
    y = [heights[k] - v[k][1] for k in (0, 1) if v[k][1] > 0] + [
        2 * SIZE - v[k][3] for k in (2, 3) if v[k][3] < heights[k]
    ]
    centre = int((x or [max(widths[0], widths[2])])[0]), int((y or [max(heights[:2])])[0])
    assert np.array_equal(mosaic_cells(centre, params.shapes, SIZE)[1], params.visible)
    return centre


@pytest.mark.parametrize(
    "settings", [AugmentSettings(scale=0.3), AugmentSettings(scale=0.3, degrees=20)], ids=["upright", "slanted"]
)
def test_no_grey_seam_between_the_images_of_a_mosaic(settings):
    white = np.full((SIZE, SIZE, 3), 255, np.uint8)
    shapes = np.full((5, 2), SIZE)
    for position in range(30):
        params = sample_params(
            settings, shapes, size=SIZE, seed=0, epoch=0, position=position, index=0, partners=range(5)
        )
        picture = draw_picture(params, MAIN, lambda _: white)
        middle = SIZE // 2  # zoom >= 0.7 and translation <= 0.1: the 2S canvas covers the middle of the output
        assert (picture[middle - 20 : middle + 20, middle - 20 : middle + 20] == 255).mean() > 0.5
        assert set(np.unique(picture)) <= {BACKGROUND, 255}
        covered = (picture[..., 0] == 255).astype(np.uint8)
        assert np.array_equal(
            covered,
            cv2.morphologyEx(np.pad(covered, 3, mode="edge"), cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8))[3:-3, 3:-3],
        )


def test_pixels_and_boxes_stay_together():
    """A white rectangle on black: its bounds in the picture are its box."""
    image = np.zeros((SIZE, SIZE, 3), np.uint8)
    image[20:50, 30:70] = 255
    box = np.array([[50 / SIZE, 35 / SIZE, 40 / SIZE, 30 / SIZE]], np.float32)
    shapes = np.array([[SIZE, SIZE]])
    settings = AugmentSettings(mosaic=0.0, fliplr=0.5, flipud=0.5, scale=0.5, translate=0.2, **PLAIN)
    for position in range(60):
        params = sample_params(settings, shapes, size=SIZE, seed=0, epoch=0, position=position, index=0, partners=(0,))
        placed = place_labels(params, lambda _: (np.zeros(1, np.float32), box))
        picture = draw_picture(params, MAIN, lambda _: image)
        ys, xs = np.nonzero((picture[..., 0] > 127) & (picture[..., 0] != BACKGROUND))
        bounds = (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)
        assert np.abs(placed.boxes[0] - bounds).max() <= 0.55


def test_identity_copies_the_image():
    picture = np.full((SIZE, SIZE, 3), BACKGROUND, np.uint8)
    image = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
    draw_source(picture, image, np.eye(3), np.array([0.0, 0, SIZE, SIZE]), (SIZE, SIZE))
    assert np.array_equal(picture, image)
    draw_source(
        picture,
        image,
        np.array([[-1.0, 0, SIZE], [0, 1, 0], [0, 0, 1]]),
        np.array([0.0, 0, SIZE, SIZE]),
        (SIZE, SIZE),
    )
    assert np.array_equal(picture, image[:, ::-1])


def test_another_resolution_of_an_image_gives_the_same_picture():
    params = draw(AugmentSettings(degrees=5, **PLAIN), 7)
    full = [smooth_image(*(2 * np.array(image.shape[:2])).tolist(), seed=i) for i, image in enumerate(IMAGES)]
    small = draw_picture(
        params, MAIN, lambda i: cv2.resize(full[i], IMAGES[i].shape[1::-1], interpolation=cv2.INTER_AREA)
    )
    large = draw_picture(params, MAIN, lambda i: full[i])
    assert np.abs(small.astype(int) - large).mean() < 2


def test_render_writes_rgb_into_a_view_and_leaves_sources_alone():
    batch = np.zeros((2, SIZE, SIZE, 3), np.uint8)
    sources = [image.copy() for image in IMAGES]
    for image in sources:
        image.flags.writeable = False
    params = draw(AugmentSettings(bgr=0.0, **PLAIN), 3)
    render(params, None, lambda i: sources[i], batch[1])
    assert np.array_equal(batch[1], draw_picture(params, MAIN, load)[..., ::-1])
    assert not batch[0].any()


def test_bgr_leaves_the_order():
    out = np.zeros((SIZE, SIZE, 3), np.uint8)
    params = draw(AugmentSettings(bgr=1.0, **PLAIN), 3)
    render(params, None, load, out)
    assert np.array_equal(out, draw_picture(params, MAIN, load))


def test_mixup_blends_and_cutmix_pastes():
    out = np.zeros((SIZE, SIZE, 3), np.uint8)
    params = draw(AugmentSettings(mixup=1.0, cutmix=1.0, **PLAIN), 3)
    first, second, third = (draw_picture(params, number, load).astype(float) for number in range(3))
    render(params, (10, 20, 40, 30), load, out)
    expected = params.blend * first + (1 - params.blend) * second
    expected[20:30, 10:40] = third[20:30, 10:40]
    assert np.abs(out[..., ::-1] - expected).max() <= 0.51


def test_the_parameters_serve_a_grid_sample_backend():
    """The same matrices, applied by torch: what a GPU backend will do."""
    params = draw(AugmentSettings(mosaic=0.0, degrees=15, fliplr=1.0, **PLAIN), 11, index=2)
    image = torch.from_numpy(IMAGES[2]).permute(2, 0, 1)[None].double()
    y, x = torch.meshgrid(torch.arange(SIZE) + 0.5, torch.arange(SIZE) + 0.5, indexing="ij")
    target = torch.stack((x, y, torch.ones_like(x)), dim=-1).double()
    source = target @ torch.from_numpy(np.linalg.inv(params.matrices[0])).T
    grid = source[..., :2] / source[..., 2:] / torch.tensor(IMAGES[2].shape[1::-1]) * 2 - 1
    drawn = torch.nn.functional.grid_sample(image, grid[None], align_corners=False, padding_mode="border")[0].permute(
        1, 2, 0
    )
    inside = (grid.abs() < 0.95).all(dim=-1).numpy()
    difference = np.abs(draw_picture(params, MAIN, load) - drawn.numpy())[inside]
    assert inside.mean() > 0.3 and difference.mean() < 1.0 and difference.max() < 8


SOURCE = (40, 60)  # (h, w)
PART = np.array([10.0, 5.0, 60.0, 22.0])
MATRICES = {
    "upright": np.array([[1.5, 0, 3.2], [0, 0.71, 20.3], [0, 0, 1]]),
    "slanted": np.array([[1.1, 0.4, 3], [-0.3, 0.9, 20], [0, 0, 1]]),
    "perspective": np.array([[1.1, 0.4, 3], [-0.3, 0.9, 20], [0.004, 0.006, 1]]),
    "horizon": np.array([[1.0, 0.2, 30], [0.1, 1.0, 30], [-0.03, 0.01, 1]]),  # behind it from about x = 33
}


def shown(matrix):
    """Pixels whose centres show a point of `PART` in front of the camera, one after the other."""
    inverse, found = np.linalg.inv(matrix), np.zeros((SIZE, SIZE), bool)
    for y in range(SIZE):
        for x in range(SIZE):
            u, v, d = inverse @ (x + 0.5, y + 0.5, 1)
            if d > 0:
                found[y, x] = PART[0] <= u / d <= PART[2] and PART[1] <= v / d <= PART[3]
    return found


@pytest.mark.parametrize("kind", MATRICES)
@pytest.mark.parametrize("resolution", [SOURCE, (80, 60), (20, 90)], ids=["same", "higher", "other"])
def test_exactly_the_visible_part_is_painted(kind, resolution):
    """Whatever the resolution of the loaded image, and also where a perspective has a horizon."""
    picture = np.full((SIZE, SIZE, 3), BACKGROUND, np.uint8)
    draw_source(picture, np.full((*resolution, 3), 250, np.uint8), MATRICES[kind], PART, SOURCE)
    painted, expected = (picture == 250).all(axis=2), shown(MATRICES[kind])
    assert expected.any() and not expected.all()
    assert (painted != expected).sum() <= 2  # centres on the border itself
    assert (picture[~painted] == BACKGROUND).all()
