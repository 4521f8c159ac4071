"""A driver killed at any call to the system leaves a run that goes on to the same bytes."""

from tests.kills import CAPTIONS, KEYS, calls_of_a_run, kill_at, verdict
from tests.pipeline.runs import FakeRun


def test_a_driver_killed_at_calls_all_over_a_run(tmp_path):
    calls = calls_of_a_run(tmp_path / "calls")
    whole = FakeRun(tmp_path / "whole", CAPTIONS, **KEYS)
    whole.generate()
    kinds = {call.split()[0] for call in calls}
    assert {"os.replace", "os.fsync", "write", "open", "os.mkdir"} <= kinds
    first_of_its_kind = {calls.index(next(c for c in calls if c.startswith(kind))) + 1 for kind in kinds}
    events = [n for n, call in enumerate(calls, 1) if call.startswith("write") and "events" in call]
    for at in sorted({*range(7, len(calls), 41), *first_of_its_kind, events[0], events[-1]}):
        run = FakeRun(tmp_path / f"run-{at}", CAPTIONS, **KEYS)
        assert kill_at(run, at), calls[at - 1]
        assert verdict(run, whole.files()) == "", calls[at - 1]
