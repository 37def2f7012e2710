"""Our geometry is that of the references: CLIP's own image processor and torch's interpolation."""

import numpy as np
import pytest
import torch
from PIL import Image
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from m2ib_server.imaging import (
    Fit,
    ImageFormat,
    ModelInput,
    RenderedImage,
    Rendering,
    Resampling,
    fit_image,
    model_map,
)

SIZES = [(301, 517), (517, 301), (224, 224), (225, 224), (64, 64), (1, 7), (7, 1), (1000, 333), (3, 1000)]


@pytest.mark.parametrize("channels", [(), (3,)], ids=["grey", "rgb"])
@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("resampling", Resampling)
def test_centre_crop_is_clips_own_preprocessing(
    height: int, width: int, channels: tuple[int, ...], resampling: Resampling
) -> None:
    filters = {Resampling.BICUBIC: Image.Resampling.BICUBIC, Resampling.BILINEAR: Image.Resampling.BILINEAR}
    processor = CLIPImageProcessorPil(resample=filters[resampling])
    model_input = ModelInput(
        size=224, mean=tuple(processor.image_mean), std=tuple(processor.image_std), resampling=resampling
    )
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, *channels), dtype=np.uint8)
    image = RenderedImage(pixels=pixels, rendering=Rendering(format=ImageFormat.PNG))
    ours = fit_image(image, model_input, Fit.CENTRE_CROP).pixel_values
    theirs = processor(Image.fromarray(pixels), return_tensors="np")["pixel_values"][0]
    np.testing.assert_allclose(ours, theirs, atol=1e-6)


@pytest.mark.parametrize(("rows", "columns"), [(7, 7), (14, 14), (16, 16), (2, 1), (3, 5)])
def test_the_model_map_is_the_published_one(rows: int, columns: int) -> None:
    grid = np.random.default_rng(0).random((rows, columns), dtype=np.float32)
    stretched = torch.nn.functional.interpolate(
        torch.from_numpy(grid)[None, None], size=(224, 224), mode="bilinear", align_corners=False
    )[0, 0].numpy()
    expected = (stretched - stretched.min()) / np.ptp(stretched)
    np.testing.assert_allclose(model_map(grid, 224), expected, atol=1e-5)
