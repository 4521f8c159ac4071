"""The engine on a real Ray. Runs join the one of the session, because each start costs seconds."""

import os
import signal
import threading
from pathlib import Path
from types import SimpleNamespace

import pyarrow.parquet as pq
import pytest

from pipeline.engine import losses, ray_backend
from pipeline.engine.ledger import count_run
from pipeline.errors import StageError
from tests.pipeline.runs import FakeRun, assert_sum_is_exact
from tests.waiting import wait_for, wait_for_files


def test_ray_writes_the_bytes_of_the_plain_loop_though_a_worker_dies(make_run, ray_cluster, switches):
    on_ray, plain = make_run("ray"), make_run("plain")
    on_ray.switch("die")
    state = on_ray.generate("draw.resources.threads=1", engine="ray")
    processes = [line.split() for line in (switches / "processes").read_text().splitlines()]
    writers, drawers = ({pid for name, pid in processes if name == stage} for stage in ("Write", "Draw"))
    assert len(writers) == 1
    assert writers < drawers, "the process of one stage serves the next, until one dies"
    assert str(os.getpid()) not in drawers
    plain.generate("draw.resources.threads=1")
    assert not (switches / "die").exists(), "no worker died"
    assert on_ray.files() == plain.files()
    assert set(pq.read_table(on_ray.run / "draw" / "00000.parquet")["threads"].to_pylist()) == {1}
    assert_sum_is_exact(state)


def test_unit_that_ends_every_worker_stops_the_stage_with_its_error(make_run, ray_cluster):
    run = make_run(captions=[f"cube {i}" for i in range(5)])
    run.switch("cuda")
    with pytest.raises(
        StageError,
        match=r"draw stopped: 1 units lost one worker after the other, also row by row.*: CUDA error",
    ):
        run.generate("rows_per_part=20", engine="ray")
    assert set(run.files()) == {"plan.parquet", "write/00000.parquet"}


def test_a_row_that_kills_every_worker_costs_one_row(make_run, ray_cluster):
    run, clean = make_run("poisoned"), make_run("clean")
    run.switch("poison 7")
    state = run.generate(engine="ray")
    assert_sum_is_exact(state)
    table = pq.read_table(run.run / "draw" / "00001.parquet")
    assert table["status"].to_pylist() == ["kept", "kept", "kept", "failed"]
    assert table["reason"].to_pylist()[3].startswith("WorkerLost")
    assert not list(run.run.glob("**/*.tmp"))
    run.switch("poison 7", on=False)
    run.rerun("draw", retry_failed=True)
    clean.generate()
    assert run.files() == clean.files(), "run again it is as if nothing had been"


def test_workers_killed_from_outside_change_no_byte_and_a_row_that_exits_fails_alone(make_run, ray_cluster):
    run, clean = make_run("struck"), make_run("clean")
    run.switch("exit 7")
    run.switch("wait 15")
    signals = [signal.SIGKILL, signal.SIGTERM, signal.SIGKILL, signal.SIGTERM]  # the last hits a row alone
    struck, ended = [], threading.Event()

    def strike():
        """Each worker of the one that draws, once it is within its rows."""
        while len(struck) < len(signals) and not ended.wait(0.05):
            for pid in run.processes("Draw"):
                if pid not in struck and any((run.run / "draw").glob(".editpairs-row-*.tmp")):
                    struck.append(pid)
                    os.kill(pid, signals[len(struck) - 1])
        run.switch("wait 15", on=False)

    killer = threading.Thread(target=strike)
    killer.start()
    try:
        state = run.generate(*ONE_AT_A_TIME, engine="ray")
    finally:
        ended.set()
        killer.join()
    assert len(struck) == len(signals)
    assert_sum_is_exact(state)
    clean.generate(*ONE_AT_A_TIME)
    assert run.files() == clean.files()
    reasons = [r for r in pq.read_table(run.run / "draw" / "00000.parquet")["reason"].to_pylist() if r]
    assert reasons == ["SystemExit: 0"]


ONE_AT_A_TIME = ("rows_per_part=20", "draw.resources.workers=1", "draw.batch=4")


def test_a_row_that_hangs_costs_one_row(make_run, ray_cluster, switches, monkeypatch):
    run, clean = make_run("hanging"), make_run("clean")
    run.switch("hang 7")
    monkeypatch.setattr(losses, "time", SimpleNamespace(monotonic=clock_of_hangs(switches / "hanging")))
    monkeypatch.setattr(ray_backend, "LOOK", 0.1)
    state = run.generate("draw.resources.workers=1", engine="ray")
    assert_sum_is_exact(state)
    table = pq.read_table(run.run / "draw" / "00001.parquet")
    assert table["status"].to_pylist() == ["kept", "kept", "kept", "failed"]
    assert table["reason"].to_pylist()[3].startswith("WorkerLost")
    assert not list(run.run.glob("**/*.tmp"))
    run.switch("hang 7", on=False)
    run.rerun("draw", retry_failed=True)
    clean.generate()
    assert run.files() == clean.files(), "run again it is as if nothing had been"


def clock_of_hangs(hanging: Path):
    """A clock that stands still, and leaps at the second look at a worker that hangs."""
    looked = leapt = 0

    def tell() -> float:
        nonlocal looked, leapt
        begun = len(hanging.read_text().splitlines()) if hanging.exists() else 0
        if begun > looked:
            looked = begun
        elif looked > leapt:
            leapt = looked
        return leapt * 1e6

    return tell


def test_a_run_survives_the_loss_of_a_node(make_run, ray_cluster):
    second = ray_cluster.add_node(num_cpus=1)
    ray_cluster.wait_for_nodes()
    run, plain = make_run("cluster"), make_run("plain")
    rows_that_wait = [f"wait {row}" for row in (7, 11, 15)]  # a worker each, two here and one there
    for row in rows_that_wait:
        run.switch(row)
    driver = run.driver("draw.resources.workers=3", engine="ray")
    wait_for(lambda: len(run.processes("Draw")) == 3, driver)
    ray_cluster.remove_node(second, allow_graceful=False)
    for row in rows_that_wait:
        run.switch(row, on=False)
    assert driver.wait() == 0
    plain.generate()
    assert run.files() == plain.files()
    assert not list(run.run.glob("**/*.tmp"))


def test_a_ray_whose_node_has_ended_is_not_taken_for_a_manifest_that_asks_too_much(
    make_run, ray_cluster, monkeypatch
):
    monkeypatch.setattr("ray.cluster_resources", dict)  # as after the only raylet was killed
    with pytest.raises(StageError, match="node processes have ended: run the command again"):
        make_run().generate(engine="ray")


@pytest.mark.parametrize("left", ["workers", pytest.param("processes", marks=pytest.mark.full)])
def test_driver_killed_on_ray_leaves_nothing_behind_and_goes_on(make_run, left):
    """Ray's own helpers take half a minute to notice, so only test-full waits for them."""
    killed, whole = make_run("killed"), make_run("whole")
    killed.switch("wait 17")
    driver = killed.driver(engine="ray")
    wait_for_files(killed, "draw", 1, driver)
    assert killed.processes("Draw")
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    wait_for(lambda: not (killed.processes("Draw") if left == "workers" else processes_of(killed)))
    killed.switch("wait 17", on=False)
    committed = killed.inodes()
    assert len(committed) < 1 + 5 + 5
    state = killed.generate()
    after = killed.inodes()
    assert {name: after[name] for name in committed} == committed
    whole.generate()
    assert killed.files() == whole.files()
    assert [count.pending.total() for count in count_run(state)] == [0, 0, 0, 0]


def processes_of(run: FakeRun) -> list[int]:
    """The run's driver, its Ray and the workers."""
    mark = f"FAKE_DRIVER={run.folder}".encode()
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (process / "environ").read_bytes().split(b"\0"):
                found.append(int(process.name))
        except OSError:
            continue
    return found
