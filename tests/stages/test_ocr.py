"""The OCR engine, on what the text task draws."""

import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.edit.annotations.lettering import draw_text
from stages.models.ocr import TextReader, likeness
from tests.stages.test_lettering import BOX, row, sign


@pytest.fixture(scope="module")
def reader() -> TextReader:
    return TextReader()


@pytest.mark.parametrize("text", ["SHUT", "Fresh pasta"])
def test_what_the_text_task_writes_is_read(reader, text):
    drawn = draw_text(row(f'a sign that says "{text}"'))
    box = np.array(BOX, np.float32)
    assert reader.compare(drawn, box, text) >= 0.9
    assert reader.compare(sign(), box, text) < 0.5, "the old text is not it"


def test_an_erased_sign_has_nothing_to_read(reader):
    box = np.array([-3.0, 20.5, 500, 90], np.float32)
    assert reader.compare(draw_text(row("a blank sign")), box, "") == 1
    assert reader.compare(sign(), box, "") == 0


def test_without_the_package_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "rapidocr_onnxruntime", None)
    with pytest.raises(ValueError, match=r"score\.ocr: true needs .*editpairs\[ocr\]"):
        TextReader()


def test_likeness_counts_characters_and_neither_case_nor_spaces():
    assert likeness("fresh PASTA", "Freshpasta") == 1
    assert likeness("SHUP", "SHUT") == pytest.approx(0.75)
    assert likeness("", "SHUT") == 0
    assert likeness("something very much longer", "a") == 0, "never below"


@given(st.text(max_size=12), st.text(max_size=12))
def test_likeness_is_within_its_range(read, wanted):
    assert 0 <= likeness(read, wanted) <= 1
