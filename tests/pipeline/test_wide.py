"""A stage that decides over the whole run: what it is given, and when it becomes stale."""

import shutil
from collections.abc import Iterable
from typing import ClassVar

import pyarrow as pa
import pytest

from pipeline.engine import generate as engine
from pipeline.engine.ledger import count_run
from pipeline.errors import UserError
from pipeline.manifest.manifest import read_manifest
from stages.base import Decision, kept, rejected
from stages.placed import first_turn
from tests.pipeline.fake_stages import FAKES, Fake, Publish
from tests.pipeline.runs import QUIET, FakeRun, assert_sum_is_exact


class Few(Fake):
    """Keeps the half of the run with the smaller pictures."""

    light: ClassVar[bool] = True
    wide: ClassVar[bool] = True
    reads: ClassVar[dict] = {"draw": ["picture"], "sieve": ["choice"]}
    schema = pa.schema([pa.field("seen", pa.int32())])

    def survey(self, tables: Iterable[pa.Table]) -> None:
        self.pictures = sorted(picture for table in tables for picture in table["picture"].to_pylist())

    def decide(self, row: dict) -> Decision:
        middle = self.pictures[len(self.pictures) // 2]
        seen = len(self.pictures)
        return kept(seen=seen) if row["picture"] < middle else rejected("large", seen=seen)


STAGES = {**{name: FAKES[name] for name in ("write", "draw", "sieve")}, "few": Few, "shards": Publish}


def generate(run: FakeRun, *overrides: str, **options):
    manifest = read_manifest(run.path, overrides, STAGES)
    return engine.generate(manifest, first_turn(STAGES), progress=QUIET, engine="local", **options)


def seen(run: FakeRun) -> set[int]:
    import pyarrow.parquet as pq

    tables = [pq.read_table(path, partitioning=None) for path in (run.run / "few").glob("*.parquet")]
    return {number for table in tables for number in table["seen"].to_pylist()}


def test_it_sees_every_part_and_its_sum_is_exact(run):
    state = generate(run)
    assert_sum_is_exact(state)
    counts = {count.name: count for count in count_run(state)}
    given = counts["sieve"].kept.total()
    assert seen(run) == {given}
    assert counts["few"].kept.total() == given // 2
    assert counts["few"].reasons == {("rejected", "large"): given - given // 2}


def test_a_wave_decides_over_what_is_there_and_more_parts_make_it_stale(run):
    generate(run, wave=2)
    first = run.files("few")
    assert len(first) == 2
    state = generate(run)
    assert len(run.files("few")) == 5
    assert {name: run.files("few")[name] for name in first} != first
    assert len(seen(run)) == 1
    assert all(not count.pending.total() for count in count_run(state))


def test_waves_end_as_one_run_does(run, make_run):
    for wave in (1, 3, None):
        generate(run, wave=wave)
    other = make_run("other")
    generate(other)
    assert run.files("few", "shards") == other.files("few", "shards")


def test_nothing_is_done_again_where_nothing_changed(run):
    generate(run)
    before = run.inodes()
    generate(run)
    assert run.inodes() == before


@pytest.mark.parametrize("stage", ["draw", "sieve"])
def test_one_part_made_again_asks_for_all_decisions_and_changes_only_shards_that_differ(run, stage):
    generate(run)
    before = run.inodes("few", "shards")
    path = run.run / stage / "00001.parquet"
    path.unlink()
    state = generate(run)
    assert all(not count.pending.total() for count in count_run(state))
    assert run.inodes("few", "shards") == before, "the part came back with the same bytes"


def test_rerunning_some_parts_leaves_no_shard_stale(run):
    generate(run)
    manifest = read_manifest(run.path, ["diffusion.steps=9"], STAGES)
    state = engine.rerun(
        manifest, first_turn(STAGES), "draw", progress=QUIET, parts=range(0, 5), engine="local", replace=True
    )
    assert all(not count.pending.total() for count in count_run(state))
    assert_sum_is_exact(state)


def test_it_decides_by_no_row_of_a_part_that_was_changed(run):
    generate(run)
    shutil.rmtree(run.run / "few")
    last = sorted((run.run / "draw").iterdir())[-1]
    content = bytearray(last.read_bytes())
    content[40] ^= 1
    last.write_bytes(content)
    with pytest.raises(UserError, match=rf"draw/{last.name} cannot be believed"):
        generate(run)
    assert not [path for path in run.run.glob("few/*") if path.suffix == ".parquet"]
