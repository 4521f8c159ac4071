"""A wave takes the first parts through every stage, shards included; later waves go on from there."""

from pipeline.engine.ledger import count_run
from tests.pipeline.runs import assert_sum_is_exact


def test_wave_runs_first_parts_through_all_stages(run):
    state = run.generate(wave=1)
    assert set(run.files()) == {
        "plan.parquet",
        "write/00000.parquet",
        "draw/00000.parquet",
        "sieve/00000.parquet",
        "shards/train-00000-of-00003.parquet",
    }
    assert count_run(state)[0].pending.total() == 16
    assert_sum_is_exact(state)


def test_waves_add_up_to_the_whole_run(make_run):
    whole, waves = make_run("whole"), make_run("waves")
    whole.generate()
    waves.generate(wave=1)
    first = waves.inodes()
    waves.generate(wave=3)
    waves.generate()
    assert waves.files() == whole.files()
    after = waves.inodes()
    again = {name for name in first if after[name] != first[name]}
    assert again == {"shards/train-00000-of-00003.parquet"}, "the shard grew by the group's second part"


def test_wave_of_a_finished_run_changes_nothing(run):
    run.generate()
    before = run.inodes()
    run.generate(wave=1)
    assert run.inodes() == before
