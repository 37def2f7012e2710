"""Our rendering of DICOM equals dcmtk's within one grey level; the test needs its programs."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fakes.dicom_files import stored_file
from m2ib_server.imaging import ImageLimits, RenderedImage, Window, WindowSource, render
from m2ib_server.imaging.image import Pixels

LIMITS = ImageLimits(max_bytes=1 << 26, max_pixels=1 << 23)
WINDOWED = [
    "RG1_UNCR.dcm",
    "RG3_UNCR.dcm",
    "693_UNCR.dcm",
    "MR2_UNCR.dcm",
    "MR-SIEMENS-DICOM-WithOverlays.dcm",
    "MR_small.dcm",
    "MR_small_RLE.dcm",
    "MR_small_bigendian.dcm",
    "MR_small_padded.dcm",
    "vlut_04.dcm",
]
OTHERWISE = ["CT_small.dcm", "mlut_18.dcm", "emri_small.dcm", "image_dfl.dcm"]
COLOUR = [
    "SC_rgb.dcm",
    "SC_rgb_16bit.dcm",
    "SC_rgb_rle_16bit.dcm",
    "SC_ybr_full_422_uncompressed.dcm",
    "OBXXXX1A.dcm",
    "OBXXXX1A_expb.dcm",
    "examples_palette.dcm",
    "ExplVR_BigEnd.dcm",
]
JPEG = [
    "JPGLosslessP14SV1_1s_1f_8b.dcm",
    "SC_rgb_jpeg_gdcm.dcm",
    "SC_rgb_jpeg_dcmtk.dcm",
    "SC_jpeg_no_color_transform.dcm",
    "SC_rgb_dcmtk_+eb+cy+s2.dcm",
    "color3d_jpeg_baseline.dcm",
    "examples_ybr_color.dcm",
    "JPEG-lossy.dcm",
    "JPGExtended.dcm",
]
JPEG_LS = ["MR_small_jpeg_ls_lossless.dcm", "JPEGLSNearLossless_08.dcm", "SC_rgb_jls_lossy_line.dcm"]
PROGRAMS = {"dcm2pnm": [*WINDOWED, *OTHERWISE, *COLOUR], "dcmj2pnm": JPEG, "dcml2pnm": JPEG_LS}
CASES = [(program, name) for program, names in PROGRAMS.items() for name in names]


def dcmtk_rendering(program: str, encoded: bytes, ours: RenderedImage, folder: Path) -> Pixels:
    source, target = folder / "image.dcm", folder / "image.pnm"
    source.write_bytes(encoded)
    subprocess.run([program, "-q", "--no-overlays", *_options(ours), source, target], check=True)
    return np.asarray(Image.open(target))


def _options(ours: RenderedImage) -> list[str]:
    """Tell dcmtk which rule is in force; it applies the rule by itself."""
    if ours.rendering.window_source is WindowSource.WINDOW:
        return ["+Wi", "1"]
    if ours.rendering.window_source is WindowSource.VOI_LUT:
        return ["+Wl", "1"]
    window = ours.rendering.window
    return ["+Ww", str(window.center), str(window.width)] if window else []


@pytest.mark.parametrize(("program", "name"), CASES, ids=str)
def test_rendering_equals_dcmtk_within_one_level(program: str, name: str, tmp_path: Path) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed (Debian package dcmtk)")
    encoded = stored_file(name)
    ours = render(encoded, limits=LIMITS)
    if ours.rendering.window_source is WindowSource.PERCENTILES:
        # dcmtk knows no LINEAR_EXACT on request, so both are asked for the same LINEAR window.
        assert ours.rendering.window is not None
        window = Window(center=ours.rendering.window.center, width=max(1, round(ours.rendering.window.width)))
        ours = render(encoded, limits=LIMITS, window=window)
    theirs = dcmtk_rendering(program, encoded, ours, tmp_path)
    assert theirs.shape == ours.pixels.shape
    assert np.abs(theirs.astype(int) - ours.pixels).max() <= 1
