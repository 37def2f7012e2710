"""A bright square through the whole service: wherever it lies in the original, the map and the overlay peak on it.

The model is made so that the map must be right for the square alone: dark patches have features of length zero, and the
map of the first step is the features' squared length.
"""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPImageProcessor, CLIPModel

from checkpoints import write_checkpoint
from m2ib_client import Client
from packages import export
from serving import running_server

SIDE = 32  # of the model's input, in pixels
PATCHES = 4
ORIENTATION = 0x0112
TO_UPRIGHT = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
INVERSE = {Image.Transpose.ROTATE_270: Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_90: Image.Transpose.ROTATE_270}


@pytest.fixture(scope="module")
def beacon(tmp_path_factory):
    """A server whose one model sees nothing but light."""
    folder = tmp_path_factory.mktemp("beacon")
    checkpoint = write_checkpoint(folder / "checkpoint", "tiny")
    model = CLIPModel.from_pretrained(checkpoint)
    vision = model.vision_model
    with torch.no_grad():
        vision.embeddings.position_embedding.weight.zero_()
        vision.pre_layrnorm.bias.zero_()
        for block in vision.encoder.layers:
            block.self_attn.out_proj.weight.mul_(0.01)
            block.mlp.fc2.weight.mul_(0.01)
    model.save_pretrained(checkpoint)
    processor = CLIPImageProcessor.from_pretrained(checkpoint)
    processor.image_mean, processor.image_std = [0.0] * 3, [1.0] * 3
    processor.save_pretrained(checkpoint)
    package = export(checkpoint, folder / "package", "--name", "beacon", "--version", "1", "--vision-layer", "0")
    with running_server(package, folder) as server, Client(server.address) as client:
        yield client


def film(width, height, square):
    """A black image [height, width] with a white square (left, top, side)."""
    pixels = np.zeros((height, width), dtype=np.uint8)
    left, top, side = square
    pixels[top : top + side, left : left + side] = 255
    return Image.fromarray(pixels)


def encoded(image, kind, orientation=1):
    buffer, exif = io.BytesIO(), Image.Exif()
    exif[ORIENTATION] = orientation
    image.save(buffer, kind, exif=exif, **({"quality": 95} if kind == "JPEG" else {}))
    return buffer.getvalue()


def centre_of(weights):
    """The centre of what is near the maximum, (x, y) in pixels."""
    rows, columns = np.nonzero(np.nan_to_num(weights, nan=-1.0) >= 0.95 * np.nanmax(weights))
    return np.array([columns.mean() + 0.5, rows.mean() + 0.5])


def assert_peaks_on(explanation, width, height, square):
    assert explanation.image.original_size == (width, height)
    left, top, side = square
    centre = np.array([left + side / 2, top + side / 2])
    affine = explanation.image.grid_to_original
    patch = np.array([abs(affine.xx), abs(affine.yy)])
    overlay = np.asarray(explanation.overlay(), dtype=float)
    rendering = np.asarray(explanation.rendering().convert("RGB"), dtype=float)
    assert overlay.shape == (height, width, 3)
    colour = overlay.max(axis=2) - overlay.min(axis=2)
    for peak in (centre_of(explanation.image.original_map), peak_of_grid(explanation)):
        assert (np.abs(peak - centre) <= patch + 1).all(), (peak, centre, patch)
    coloured = np.nonzero(colour >= 0.5 * colour.max())
    assert abs(np.median(coloured[1]) - centre[0]) <= patch[0] + side
    assert abs(np.median(coloured[0]) - centre[1]) <= patch[1] + side
    assert rendering[top + side // 2, left + side // 2].min() > 200


def peak_of_grid(explanation):
    """The original's pixel under the grid's peak, by the affine alone."""
    grid = explanation.image.grid_bits
    rows, columns = np.nonzero(grid >= 0.95 * grid.max())
    return np.array(explanation.image.grid_to_original.apply(columns.mean() + 0.5, rows.mean() + 0.5))


def explained(client, image, **options):
    return client.explain(
        image, "a cat", sides=("image",), steps=1, outputs=("original_map", "overlay", "rendering"), **options
    )


@pytest.mark.parametrize("fit", ["letterbox", "centre_crop", "stretch"])
@pytest.mark.parametrize(
    ("width", "height", "square"),
    [
        (64, 64, (8, 40, 8)),
        (301, 517, (200, 150, 60)),
        (517, 301, (150, 200, 60)),
        (33, 31, (20, 4, 6)),
        (1023, 640, (400, 100, 130)),
    ],
)
def test_the_peak_lands_on_the_square(beacon, fit, width, height, square):
    explanation = explained(beacon, encoded(film(width, height, square), "PNG"), fit=fit)
    assert_peaks_on(explanation, width, height, square)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("fit", ["letterbox", "centre_crop", "stretch"])
def test_the_peak_lands_on_the_square_as_displayed(beacon, fit, orientation):
    upright = film(300, 200, (170, 30, 40))
    turn = TO_UPRIGHT[orientation]
    stored = upright if turn is None else upright.transpose(INVERSE.get(turn, turn))
    explanation = explained(beacon, encoded(stored, "JPEG", orientation), fit=fit)
    assert_peaks_on(explanation, 300, 200, (170, 30, 40))


def test_what_a_crop_cuts_off_is_marked_and_not_painted_as_zero(beacon):
    explanation = explained(beacon, encoded(film(400, 200, (180, 80, 40)), "PNG"), fit="centre_crop")
    values = explanation.image.original_map
    assert np.isnan(values[:, :100]).all()
    assert np.isnan(values[:, 300:]).all()
    assert np.isfinite(values[:, 100:300]).all()
    overlay = np.asarray(explanation.overlay(), dtype=float)
    assert overlay[:, :99].std() > 0  # hatched, though the film is black there


def test_a_letterbox_leaves_nothing_out(beacon):
    explanation = explained(beacon, encoded(film(400, 200, (180, 80, 40)), "PNG"), fit="letterbox")
    assert np.isfinite(explanation.image.original_map).all()


def test_a_tensor_is_its_own_original(beacon):
    tensor = np.zeros((3, SIDE, SIDE), dtype=np.float32)
    tensor[:, 16:24, 8:16] = 1.0
    explanation = explained(beacon, tensor)
    assert_peaks_on(explanation, SIDE, SIDE, (8, 16, 8))
    assert explanation.image.grid_bits.shape == (PATCHES, PATCHES)
