"""verdicts.parquet: no verdict that was given is lost, and no file of another kind is believed."""

import os
import signal
import subprocess
import sys
from datetime import datetime, timezone

import numpy as np
import pandas
import pytest

from pipeline.errors import UserError
from pipeline.store.folder import RunFolder
from pipeline.store.new_file import remove_temporaries
from pipeline.verdicts.book import Book
from pipeline.verdicts.given_file import read_given
from pipeline.verdicts.verdict import Key, Verdict, agreed
from tests.pipeline.reviewables import row_id
from tests.pipeline.runs import ROOT

GIVES = """
import sys
from pipeline.store.folder import RunFolder
from pipeline.verdicts.book import Book
from pipeline.verdicts.verdict import Verdict
book, first = Book(RunFolder(sys.argv[1]), "f" * 32), int(sys.argv[2])
for number in range(first, first + int(sys.argv[3])):
    book.add([Verdict(id=f"{number:032x}", candidate=0, verdict="right", who="anna")])
    print(number, flush=True)
"""
"""Prints each verdict's number once it has been stored."""


def book_of(folder) -> Book:
    return Book(RunFolder(folder), "f" * 32)


def said(number: int, verdict: str = "right", who: str = "anna", **more) -> Verdict:
    return Verdict(id=row_id(number), candidate=0, verdict=verdict, who=who, **more)


def giver(folder, first: int, count: int) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", GIVES, str(folder), str(first), str(count)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )


def test_verdicts_come_back_as_they_were_given(tmp_path):
    given = [
        said(1, reason="outside", when=datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)),
        said(2, "unsure", who="Björn <b>", stratum="color kept near", stratum_rows=7, design="abc"),
        said(3, "wrong", anchor_hash=-(2**63), candidate_hash=2**63 - 1),
    ]
    book = book_of(tmp_path)
    book.add(given)
    back = book.read()
    assert [v.model_copy(update={"when": None}) for v in back] == [
        v.model_copy(update={"when": None}) for v in given
    ]
    assert back[0].when == given[0].when
    assert list(pandas.read_parquet(book.path).verdict) == ["right", "unsure", "wrong"]


def test_a_later_verdict_of_the_same_person_replaces_the_first(tmp_path):
    book = book_of(tmp_path)
    book.add([said(1), said(2), said(1, "wrong", who="bob")])
    book.add([said(1, "unsure")])
    assert [(v.id[-1], v.verdict, v.who) for v in book.read()] == [
        ("1", "unsure", "anna"),
        ("2", "right", "anna"),
        ("1", "wrong", "bob"),
    ]


def test_only_the_persons_own_verdict_is_taken_back(tmp_path):
    book = book_of(tmp_path)
    book.add([said(1), said(1, who="bob")])
    book.take_back(Key(row_id(1), 1, 0), "anna")
    book.take_back(Key(row_id(9), 1, 0), "anna")
    assert [v.who for v in book.read()] == ["bob"]


def test_no_stored_verdict_is_lost_when_its_process_is_killed(tmp_path):
    """Killed at once after one more verdict was stored, so in the middle of the next change."""
    for first in (0, 10_000):
        process = giver(tmp_path, first, 10_000)
        for _ in range(5):
            told = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
        told = int((process.communicate()[0].split() or [told])[-1])
        numbers = [int(v.id, 16) for v in book_of(tmp_path).read() if int(v.id, 16) >= first]
        assert set(range(first, told + 1)) <= set(numbers)
        assert len(numbers) <= told - first + 2, "at most the one in the making"


def test_two_processes_at_once_lose_none_of_each_other(tmp_path):
    processes = [giver(tmp_path, first, 12) for first in (0, 1000)]
    for process in processes:
        process.communicate()
        assert process.returncode == 0
    numbers = {int(v.id, 16) for v in book_of(tmp_path).read()}
    assert numbers == {*range(12), *range(1000, 1012)}


def test_a_run_that_starts_meanwhile_costs_no_verdict(tmp_path, monkeypatch):
    """It removes temporary files from the folder, and one of them is the book's."""
    book, replace, removed = book_of(tmp_path), os.replace, []

    def meanwhile(source, target):
        if not removed:
            removed.append(source)
            remove_temporaries(tmp_path)
        replace(source, target)

    monkeypatch.setattr(os, "replace", meanwhile)
    book.add([said(1)])
    assert removed
    assert len(book.read()) == 1


@pytest.mark.parametrize("damage", ["a bit", "another run", "no parquet"])
def test_a_book_that_cannot_be_believed_is_named_and_not_written_over(tmp_path, damage):
    book = book_of(tmp_path)
    if damage == "another run":
        Book(RunFolder(tmp_path), "e" * 32).add([said(1)])
    else:
        book.add([said(1)])
        content = bytearray(book.path.read_bytes())
        content[len(content) // 3] ^= 1
        book.path.write_bytes(content if damage == "a bit" else b"who,verdict\n")
    before = book.path.read_bytes()
    with pytest.raises(UserError, match=r"verdicts\.parquet cannot be believed: .*put a copy back"):
        book.add([said(2)])
    assert book.path.read_bytes() == before


CSV = "id,candidate,verdict,reason,who,notes\n{0},0,right,,,\n{0},1,wrong,outside,bob,x\n"


def test_the_same_verdicts_come_from_every_kind_of_file(tmp_path):
    csv, jsonl, parquet = (tmp_path / f"v.{suffix}" for suffix in ("csv", "jsonl", "parquet"))
    csv.write_text("\ufeff" + CSV.format(row_id(5)), encoding="utf-8")
    frame = pandas.read_csv(csv, dtype={"id": str}).drop(columns="notes")
    frame.to_json(jsonl, orient="records", lines=True)
    frame.to_parquet(parquet)
    read = [
        [(v.key, v.verdict, v.reason, v.who) for v in read_given(path, "anna")]
        for path in (csv, jsonl, parquet)
    ]
    assert read[0] == [
        (Key(row_id(5), 1, 0), "right", "", "anna"),
        (Key(row_id(5), 1, 1), "wrong", "outside", "bob"),
    ]
    assert read[1] == read[0]
    assert read[2] == read[0]


def test_a_book_of_another_copy_of_the_run_is_taken_with_its_strata(tmp_path):
    book = book_of(tmp_path)
    book.add([said(1, stratum="color kept far", stratum_rows=3, design="d", anchor_hash=1, candidate_hash=2)])
    assert read_given(book.path, "bob") == book.read()


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("v.csv", "id,candidate,verdict\nx,0,right\n", "line 2: id: .*, not 'x'"),
        (
            "v.csv",
            f"id,candidate,verdict\n{row_id(1)},0,good\n",
            "line 2: verdict: .*'right', 'wrong'.*'good'",
        ),
        ("v.csv", f"id,candidate,verdit\n{row_id(1)},0,good\n", "line 2: verdict: Field required"),
        ("v.csv", f"id,candidate,verdict\n{row_id(1)},-1,right\n", "line 2: candidate: .*'-1'"),
        ("v.csv", "id,candidate,verdict\n", "it holds no verdicts"),
        ("v.csv", b"\xff\xfe\x00", "it cannot be read"),
        ("v.jsonl", "[1]\n", "line 1 is not a JSON object"),
        ("v.jsonl", "{}\n{\n", "line 1: id: Field required"),
        ("v.jsonl", "{\n", "line 1 is not valid JSON"),
        ("v.jsonl", "[" * 100_000, "line 1 is not valid JSON"),
        ("v.parquet", "PAR1", "it cannot be read"),
        ("v.xlsx", "", r"the formats are \.csv, \.jsonl, \.parquet"),
        ("", "", "the formats are"),
    ],
)
def test_a_wrong_file_is_one_message_that_names_the_line(tmp_path, name, content, told):
    path = tmp_path / name
    if name:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=f"--from {path}: {told}"):
        read_given(path, "anna")


def test_a_missing_file_is_said_to_be_missing(tmp_path):
    with pytest.raises(UserError, match=r"it cannot be read: No such file"):
        read_given(tmp_path / "v.csv", "anna")


def test_the_majority_of_clear_verdicts_counts():
    rng = np.random.default_rng(0)
    for _ in range(50):
        votes = rng.choice(["right", "wrong", "unsure"], rng.integers(1, 6))
        verdicts = [said(1, verdict, who=str(k)) for k, verdict in enumerate(votes)]
        right, wrong = (votes == "right").sum(), (votes == "wrong").sum()
        assert agreed(verdicts) == ({} if right == wrong else {Key(row_id(1), 1, 0): right > wrong})
