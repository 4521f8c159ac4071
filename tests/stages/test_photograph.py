"""Photographs of any kind become what is seen, or are refused with a reason; nothing else comes of them."""

import struct
import zlib
from contextlib import suppress
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from stages.pictures.photograph import (
    LEAST,
    PhotographError,
    fitted,
    nearest_size,
    open_photograph,
)

HALVES = np.zeros((40, 60, 3), np.uint8)
"""Red above blue."""
HALVES[:20], HALVES[20:] = (200, 30, 30), (20, 40, 220)


def saved(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    content = BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


def pixels(data: bytes) -> np.ndarray:
    image = open_photograph(data)
    assert image.mode == "RGB"
    return np.asarray(image)


def near(first: np.ndarray, second: np.ndarray, levels: int = 3) -> bool:
    return first.shape == second.shape and np.abs(first.astype(int) - second).max() <= levels


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF"])
def test_every_format_shows_the_picture(kind):
    options = {"lossless": True} if kind == "WEBP" else {"quality": 100, "subsampling": 0}
    assert near(
        pixels(saved(Image.fromarray(HALVES), kind, **(options if kind in ("WEBP", "JPEG") else {}))),
        HALVES,
        4,
    )


@pytest.mark.parametrize(("orientation", "turns"), [(3, 2), (6, 3), (8, 1)])
def test_a_picture_is_turned_as_its_camera_says(orientation, turns):
    exif = Image.Exif()
    exif[0x0112] = orientation
    seen = pixels(saved(Image.fromarray(HALVES), "JPEG", exif=exif, quality=100, subsampling=0))
    assert near(seen, np.rot90(HALVES, turns), 4)


def test_damaged_exif_data_does_not_cost_the_picture():
    assert near(pixels(saved(Image.fromarray(HALVES), "PNG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")), HALVES)


def test_what_is_transparent_lies_on_white():
    image = Image.fromarray(HALVES).convert("RGBA")
    image.putalpha(Image.fromarray(np.full((40, 60), 128, np.uint8)))
    assert near(pixels(saved(image)), np.round(HALVES * (128 / 255) + 255 * (127 / 255)), 1)
    palette = Image.fromarray(HALVES).quantize(4)
    palette.info["transparency"] = palette.getpixel((0, 0))
    seen = pixels(saved(palette, "GIF"))
    assert (seen[:20] == 255).all()
    assert near(seen[20:], HALVES[20:])


def test_grey_palette_and_cmyk_are_converted():
    grey = Image.fromarray(HALVES).convert("L")
    expected = np.repeat(np.asarray(grey)[..., None], 3, 2)
    assert near(pixels(saved(grey)), expected, 0)
    assert near(pixels(saved(grey.convert("LA"))), expected, 0)
    assert near(pixels(saved(Image.fromarray(HALVES).quantize(8))), HALVES)
    assert near(pixels(saved(Image.fromarray(HALVES).convert("CMYK"), "TIFF")), HALVES)
    bits = Image.fromarray(HALVES).convert("1")
    assert set(np.unique(pixels(saved(bits)))) <= {0, 255}


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_and_not_clipped(kind):
    values = np.linspace(0, 65535, 40 * 60).reshape(40, 60).astype(np.uint16)
    seen = pixels(saved(Image.fromarray(values), kind))
    assert near(seen, np.repeat(np.round(values / 257)[..., None], 3, 2), 0)


def test_an_animation_gives_its_first_frame():
    frames = [Image.fromarray(HALVES), Image.fromarray(255 - HALVES)]
    for kind in ("GIF", "WEBP", "PNG"):
        options = {"lossless": True} if kind == "WEBP" else {}
        data = saved(frames[0], kind, save_all=True, append_images=frames[1:], **options)
        assert near(pixels(data), HALVES)


def test_a_colour_profile_is_applied_and_a_damaged_one_left_out():
    lab_like = ImageCms.ImageCmsProfile(ImageCms.createProfile("XYZ")).tobytes()
    for useless in (b"no profile", lab_like):
        assert near(pixels(saved(Image.fromarray(HALVES), icc_profile=useless)), HALVES)
    swapped = _linear_profile()
    seen = pixels(saved(Image.fromarray(np.full((40, 60, 3), 128, np.uint8)), icc_profile=swapped))
    assert near(seen, np.full((40, 60, 3), 188), 2), "half of the light is 188 of 255 in sRGB"


def _linear_profile() -> bytes:
    """sRGB's profile with straight tone curves in place of its own."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    (count,) = struct.unpack(">I", data[128:132])
    straight = struct.pack(">4sIIHH", b"curv", 0, 1, 256, 0)  # gamma 1 as u8Fixed8
    for tag in range(count):
        name, offset, _ = struct.unpack(">4sII", data[132 + 12 * tag : 144 + 12 * tag])
        if name.endswith(b"TRC"):
            data[offset : offset + 14] = straight[:14]
            data[140 + 12 * tag : 144 + 12 * tag] = struct.pack(">I", 14)
    return bytes(data)


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few hundred bytes that claims many pixels."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 99))
        + chunk(b"IEND", b"")
    )


WHOLE = saved(Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)), "JPEG")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "picture_kind"),
        (b"<svg/>", "picture_kind"),
        (b"%PDF-1.4", "picture_kind"),
        (b"\xff\xd8\xff", "picture_broken"),
        (WHOLE[: len(WHOLE) // 2], "picture_broken"),
        (bomb(9000, 9000), "picture_too_large"),
        (bomb(60_000, 60_000), "picture_too_large"),
        (bomb(100, 100), "picture_broken"),
        (saved(Image.fromarray(np.ones((9, 9), np.float32)), "TIFF"), "picture_kind"),
        (saved(Image.fromarray(np.full((9, 9), -5, np.int32)), "TIFF"), "picture_kind"),
    ],
)
def test_what_cannot_be_used_is_refused_with_its_reason(data, reason):
    with pytest.raises(PhotographError, match=f"^{reason}$"):
        open_photograph(data)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, len(WHOLE) - 1), st.binary(min_size=1, max_size=8), st.booleans())
def test_damaged_bytes_give_a_picture_or_a_reason(at, other, cut):
    data = WHOLE[:at] + other + (b"" if cut else WHOLE[at + len(other) :])
    with suppress(PhotographError):  # any other error is the test's failure
        assert open_photograph(data).mode == "RGB"


@settings(max_examples=60, deadline=None)
@given(st.integers(16, 90), st.integers(16, 90), st.sampled_from([(16, 16), (16, 24), (24, 12), (32, 32)]))
def test_a_picture_fits_without_distortion_or_is_too_small(width, height, size):
    """A square stays a square: the middle of the picture is drawn as a chessboard around a white square."""
    image = Image.new("RGB", (width, height), "black")
    side = min(width, height) // 4
    left, top = (width - side) // 2, (height - side) // 2
    image.paste("white", (left, top, left + side, top + side))
    if min(height / size[0], width / size[1]) < LEAST:
        with pytest.raises(PhotographError, match="picture_too_small"):
            fitted(image, size)
        return
    made = fitted(image, size)
    assert made.shape == (*size, 3)
    assert made.dtype == np.uint8
    scale = max(size[0] / height, size[1] / width)
    light = made[..., 0] / 255
    high, wide = light.sum(0).max(), light.sum(1).max()
    assert abs(high - side * scale) < 1.5
    assert abs(wide - side * scale) < 1.5


def test_the_bucket_of_the_nearest_proportion_is_chosen():
    sizes = [(16, 16), (16, 24), (24, 16)]
    chosen = [
        nearest_size(Image.new("RGB", size), sizes) for size in ((100, 90), (100, 60), (50, 80), (900, 100))
    ]
    assert chosen == [(16, 16), (16, 24), (24, 16), (16, 24)]
