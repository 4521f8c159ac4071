"""Pictures of others: a header says what they are before anything is decoded."""

import struct
import zlib
from io import BytesIO

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from stages.pictures.png import MAX_PIXELS, decode_grey, decode_mask, decode_rgb, encode_png, png_size

NOISE = np.random.default_rng(0).integers(0, 255, (48, 40, 3)).astype(np.uint8)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, depth: int = 8, colour: int = 2, before: bytes = b"") -> bytes:
    header = struct.pack(">II5B", width, height, depth, colour, 0, 0, 0)
    pixels = zlib.compress(b"\0" * min(10_000, (1 + 6 * width) * height))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        [chunk(b"IHDR", header), before, chunk(b"IDAT", pixels), chunk(b"IEND", b"")]
    )


def saved(form: str, mode: str = "RGB", **options: object) -> bytes:
    content = BytesIO()
    Image.new(mode, (16, 16), 3 if mode in "PL1" else None).save(content, form, **options)
    return content.getvalue()


BOMB = zlib.compress(b"a" * 7_000_000)
HOSTILE = {
    "nothing": b"",
    "none": None,
    "zeros": bytes(500),
    "signature alone": b"\x89PNG\r\n\x1a\n",
    "cut in the header": png(8, 8)[:30],
    "60000 x 60000": png(60000, 60000),
    "a long line": png(2**31 - 1, 1),
    "one pixel too many": png(4096, 4097),
    "no pixel": png(0, 0),
    "cut in the middle": encode_png(NOISE)[:2000],
    "without its end": png(8, 8)[:-12],
    "something after its end": png(8, 8) + b"<script>",
    "too few pixels": png(64, 640),
    "16 bits": png(8, 8, depth=16),
    "a palette": saved("PNG", "P"),
    "one bit": saved("PNG", "1"),
    "transparent": saved("PNG", "RGBA"),
    "a flood of warnings": png(8, 8, before=chunk(b"tEXt", b"") * 100),
    "texts that are bombs": png(8, 8, before=chunk(b"zTXt", b"k\0\0" + BOMB) * 30),
    "a profile that is a bomb": png(8, 8, before=chunk(b"iCCP", b"k\0\0" + BOMB)),
    "animated": saved("PNG", save_all=True, append_images=[Image.new("RGB", (16, 16), "red")]),
    **{form: saved(form) for form in ("JPEG", "TIFF", "WEBP", "GIF", "BMP", "PPM")},
    "SVG": b'<svg xmlns="http://www.w3.org/2000/svg" width="99999" height="99999"/>',
}
exif = Image.Exif()
exif[0x112] = 6
HOSTILE["turned"] = saved("PNG", exif=exif)


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("decode", [decode_rgb, decode_grey, decode_mask])
def test_what_editpairs_does_not_write_is_a_value_error(name, decode):
    with pytest.raises(ValueError, match="picture"):
        decode(HOSTILE[name])


@pytest.mark.parametrize("name", ["60000 x 60000", "texts that are bombs", "a profile that is a bomb"])
def test_bombs_never_reach_the_decoder(name, monkeypatch):
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("it was decoded"))
    with pytest.raises(ValueError, match="picture"):
        decode_rgb(HOSTILE[name])


@given(arrays(np.uint8, st.tuples(st.integers(1, 30), st.integers(1, 30), st.just(3))))
def test_own_pictures_come_back(image):
    assert np.array_equal(decode_rgb(encode_png(image)), image)
    assert np.array_equal(decode_grey(encode_png(image[..., 0])), image[..., 0])
    assert png_size(encode_png(image)) == image.shape[:2]


def test_pictures_that_pillow_wrote_are_read():
    for mode in ("RGB", "L"):
        assert decode_rgb(saved("PNG", mode, optimize=True)).shape == (16, 16, 3)


def test_the_largest_picture_is_of_a_size_that_models_draw():
    assert MAX_PIXELS >= 2048 * 2048
    assert png_size(png(4096, 4096)) == (4096, 4096)


@given(st.data())
def test_any_damage_is_a_value_error_or_a_picture_of_the_size_it_claims(data):
    content = bytearray(encode_png(NOISE))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    whole = bytes(content[: data.draw(st.integers(len(content) - 20, len(content)))])
    try:
        image = decode_rgb(whole)
    except ValueError:
        return
    assert image.shape[:2] == png_size(whole)
