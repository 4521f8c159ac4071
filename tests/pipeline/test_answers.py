"""Answers that were paid for: found again after a kill, not believed when damaged, never lost in silence."""

import errno
import os
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import UserError
from pipeline.store import files
from pipeline.store.answers import KeptAnswers

TEXTS = st.text(max_size=20) | st.sampled_from(['", "check": "', "\ud800", "\n\0\u2028", "x" * 5000])


@given(st.dictionaries(TEXTS, TEXTS, max_size=8))
def test_every_answer_is_found_again_whatever_it_says(answers):
    with TemporaryDirectory() as folder:
        path = Path(folder) / "answers/ask/00000.jsonl"
        kept = KeptAnswers(path)
        for key, answer in answers.items():
            assert kept.get(key) is None
            kept.put(key, answer)
        assert all(kept.get(key) == answer for key, answer in answers.items())
        again = KeptAnswers(path)
        assert {key: again.get(key) for key in answers} == answers
        assert again.get("another") is None
        assert path.exists() == bool(answers), "no file without an answer"


@given(st.data())
def test_a_file_cut_short_or_changed_anywhere_loses_what_was_there_and_nothing_else(data):
    with TemporaryDirectory() as folder:
        path = Path(folder) / "00000.jsonl"
        answers = {f"key {n}": f"answer {n}" for n in range(4)}
        for key, answer in answers.items():
            KeptAnswers(path).put(key, answer)
        content = bytearray(path.read_bytes())
        place = data.draw(st.integers(0, len(content) - 1))
        if data.draw(st.booleans()):
            content = content[:place]
        else:
            content[place] ^= 1 << data.draw(st.integers(0, 7))
        path.write_bytes(content)
        damaged = KeptAnswers(path)
        found = {key: damaged.get(key) for key in answers}
        assert all(found[key] in (None, answer) for key, answer in answers.items())
        assert list(found.values()).count(None) <= (2 if len(content) > place else 4)
        damaged.put("new", "after")
        assert KeptAnswers(path).get("new") == "after"
        assert all(KeptAnswers(path).get(key) == answer for key, answer in found.items() if answer)


def test_two_workers_of_one_part_find_each_others_answers(tmp_path):
    first, second = KeptAnswers(tmp_path / "a.jsonl"), KeptAnswers(tmp_path / "a.jsonl")
    for n in range(20):
        (first if n % 2 else second).put(f"{n}", f"answer {n}")
    again = KeptAnswers(tmp_path / "a.jsonl")
    assert [again.get(f"{n}") for n in range(20)] == [f"answer {n}" for n in range(20)]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES])
def test_a_disk_that_takes_nothing_is_named(tmp_path, monkeypatch, number):
    def fail(*arguments):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(files, "append", fail)
    with pytest.raises(UserError, match=rf"a\.jsonl: {os.strerror(number)}"):
        KeptAnswers(tmp_path / "a.jsonl").put("key", "answer")
