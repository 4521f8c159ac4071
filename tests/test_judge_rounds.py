"""A judge in a run of rounds: rows that its marks reject are drawn again, and it sees the new pictures."""

from collections.abc import Iterator

import pyarrow.parquet as pq
import pytest

from pipeline.audit.file_checks import recount
from tests.pipeline.runs import ROOT
from tests.pipeline.scored_runs import scored_run
from tests.stages.chat_server import Behaviour, ChatServer, completion, said, then

ROWS = 6
CANDIDATES = 2
GOOD_AT_FIRST = 4


def marks(consistency: int) -> Behaviour:
    answer = f'{{"reason": "", "instruction_following": 5, "consistency": {consistency}, "quality": 5}}'
    return said(completion(answer))


@pytest.fixture
def server() -> Iterator[ChatServer]:
    """Finds few pictures of the first round good, and all later ones."""
    later = then(marks(1), marks(5), often=ROWS * CANDIDATES)
    made = ChatServer(default=then(marks(5), later, often=GOOD_AT_FIRST))
    yield made
    made.shutdown()
    made.server_close()


def column_of(run, step: str, column: str) -> dict[str, object]:
    files = sorted((run.folder / step).glob("*.parquet"))
    return {row["id"]: row[column] for file in files for row in pq.read_table(file).to_pylist()}


def test_rows_that_a_judge_rejects_are_drawn_again_and_judged_again(tmp_path, monkeypatch, server):
    monkeypatch.setenv("TEST_KEY", "any")
    monkeypatch.chdir(ROOT)
    endpoint = {"base_url": server.url, "api_key_variable": "TEST_KEY"}
    bounds = {"judge_consistency": 4, "clip_text_output": 0, "clip_direction": 0}
    settings = [
        *(f"{key}={value}" for key, value in {"rows": ROWS, "repeats": 1, "rows_per_part": 3}.items()),
        *(f"judge.endpoint.{key}={value}" for key, value in endpoint.items()),
        *(f"filter.default.{metric}={least}" for metric, least in bounds.items()),
    ]
    run = scored_run(tmp_path, monkeypatch, *settings, "judge.model=m", "rounds=2")
    first = column_of(run, "filter", "reason")
    again = {row for row, reason in first.items() if reason}
    assert {first[row] for row in again} == {"judge_consistency_low"}
    assert GOOD_AT_FIRST / CANDIDATES <= ROWS - len(again) <= GOOD_AT_FIRST
    assert column_of(run, "judge.r2", "status") == dict.fromkeys(again, "kept")
    assert server.asked.total() == CANDIDATES * (ROWS + len(again)), "no picture is judged twice"
    assert column_of(run, "filter.r2", "status") == dict.fromkeys(again, "kept")
    published = column_of(run, "shards", "judge_consistency")
    assert len(published) == ROWS
    assert set(published.values()) == {5}, "marks of the round that kept the row"
    seeds = column_of(run, "source.r2", "seed")
    assert {row: seed for row, seed in column_of(run, "shards", "seed").items() if row in again} == seeds
    assert all(finding.fine for finding in recount(run.state))
