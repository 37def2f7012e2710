import json

import pytest

from m2ib_export.errors import CheckpointInvalid
from m2ib_export.geometry import VisionGeometry
from m2ib_export.preprocessing import Preprocessing, read_preprocessing

VISION = VisionGeometry(depth=3, width=32, image_size=32, patch_size=8, leading_tokens=1, channels=3)
GOOD = {
    "crop_size": {"height": 32, "width": 32},
    "size": {"shortest_edge": 40},
    "image_mean": [0.5, 0.4, 0.3],
    "image_std": [0.2, 0.3, 0.4],
    "resample": 3,
    "rescale_factor": 1 / 255,
}


def read(directory, document, name="preprocessor_config.json"):
    (directory / name).write_text(json.dumps(document), encoding="utf-8")
    return read_preprocessing(directory, VISION)


def test_a_checkpoints_preprocessing_is_read(tmp_path):
    assert read(tmp_path, GOOD) == Preprocessing(resampling="bicubic", mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))


def test_a_combined_processor_file_is_read(tmp_path):
    combined = {"image_processor": {**GOOD, "resample": 2}}
    assert read(tmp_path, combined, "processor_config.json").resampling == "bilinear"


def test_without_normalisation_values_stay_as_they_are(tmp_path):
    read_values = read(tmp_path, {**GOOD, "do_normalize": False})
    assert (read_values.mean, read_values.std) == ((0.0,) * 3, (1.0,) * 3)


def test_without_a_crop_the_size_counts(tmp_path):
    assert read(tmp_path, {**GOOD, "do_center_crop": False, "size": 32}).resampling == "bicubic"
    with pytest.raises(CheckpointInvalid, match=r"size: seen {'shortest_edge': 40}; allowed: 32"):
        read(tmp_path, {**GOOD, "do_center_crop": False})


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"crop_size": 224}, "crop_size: seen 224; allowed: 32"),
        ({"crop_size": {"height": 32, "width": 48}}, "allowed: 32"),
        ({"resample": 1}, r"resample: seen 1; allowed: 2 \(bilinear\), 3 \(bicubic\)"),
        ({"rescale_factor": 1.0}, "rescale_factor: seen 1.0; allowed: 1/255"),
        ({"do_rescale": False}, "rescale_factor: seen None"),
        ({"image_mean": [0.5]}, r"image_mean: seen \[0.5\]; allowed: 3 numbers"),
        ({"image_std": [0.2, 0.0, 0.2]}, "allowed: 3 numbers above 0"),
        ({"image_std": None}, "image_std: seen None"),
    ],
)
def test_what_the_server_could_not_do_is_refused(tmp_path, change, text):
    with pytest.raises(CheckpointInvalid, match=text):
        read(tmp_path, {**GOOD, **change})
