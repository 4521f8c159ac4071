"""Pictures of other data sets: every common format, whatever the bytes are."""

from io import BytesIO

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pipeline.audit.hash_index import BITS
from stages.pictures import foreign
from stages.pictures.foreign import decode_foreign
from stages.pictures.perceptual_hash import perceptual_hash

NONE = [None, b"", b"nothing", b"<svg/>", b"%PDF-1.4", b"\xff\xd8\xff", b"RIFF", b"BM"]


def drawing(side: int = 96) -> np.ndarray:
    """1/f noise, which has the spectrum of a photograph, uint8 [side,side,3]."""
    frequencies = np.hypot(*np.meshgrid(np.fft.fftfreq(side), np.fft.fftfreq(side)))
    frequencies[0, 0] = 1
    noise = np.random.default_rng(5).standard_normal((3, side, side))
    image = np.fft.ifft2(np.fft.fft2(noise) / frequencies).real.transpose(1, 2, 0)
    return np.clip(127 + 50 * image / image.std(), 0, 255).astype(np.uint8)


def encoded(image: np.ndarray, kind: str, mode: str = "RGB", **options: object) -> bytes:
    content = BytesIO()
    Image.fromarray(image).convert(mode).save(content, kind, **options)
    return content.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
@pytest.mark.parametrize("side", [96, 300])
def test_a_picture_in_another_format_and_size_has_nearly_the_same_hash(kind, side):
    resized = np.asarray(Image.fromarray(drawing()).resize((side, side), Image.Resampling.BICUBIC))
    other = decode_foreign(encoded(resized, kind))
    assert other.shape == (side, side, 3)
    differing = (perceptual_hash(other) ^ perceptual_hash(drawing())) & (2**64 - 1)
    assert differing.bit_count() <= BITS


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "LA", "1", "CMYK"])
def test_pictures_of_all_modes_are_read_as_rgb(mode):
    assert decode_foreign(encoded(drawing(), "JPEG" if mode == "CMYK" else "PNG", mode)).shape == (96, 96, 3)


def test_a_camera_s_turn_is_undone():
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    assert decode_foreign(encoded(drawing()[:40], "JPEG", exif=exif)).shape == (96, 40, 3)


@pytest.mark.parametrize("data", NONE)
def test_what_is_no_picture_is_one_kind_of_error(data):
    with pytest.raises(ValueError, match="picture"):
        decode_foreign(data)


@given(st.sampled_from(["PNG", "JPEG", "WEBP", "GIF", "TIFF"]), st.integers(0, 10**6), st.integers(0, 255))
def test_damaged_bytes_are_a_picture_or_that_error(kind, place, value):
    data = bytearray(encoded(drawing(24), kind))
    data[place % len(data)] = value
    for broken in (bytes(data), bytes(data[: place % len(data)])):
        try:
            assert decode_foreign(broken).ndim == 3
        except ValueError:
            continue


def test_a_picture_that_claims_to_be_huge_is_not_decoded(monkeypatch):
    monkeypatch.setattr(foreign, "MAX_PIXELS", 96 * 95)
    with pytest.raises(ValueError, match="96 x 96 pixels"):
        decode_foreign(encoded(drawing(), "PNG"))
