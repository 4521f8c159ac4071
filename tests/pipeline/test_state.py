"""What a driver has to do for every file that is written does not grow with the run."""

from collections import Counter

import pytest

from pipeline.engine.state import RunState
from pipeline.manifest.steps import Step
from pipeline.store.folder import RunFolder
from pipeline.store.plan import Plan

STEPS = [
    Step("write", "f1", ()),
    Step("draw", "f2", ("write",)),
    Step("select", "f3", ("draw",), light=True, wide=True),
    Step("shards", "f4", ("select",), light=True, parts_per_unit=8),
]


@pytest.mark.parametrize("step", STEPS[:3], ids=lambda step: step.name)
def test_a_refresh_is_as_quick_in_a_large_run_as_in_a_small_one(tmp_path, monkeypatch, step):
    """A stage that sees the whole run follows, so that every new file makes all of its files stale."""
    touched: dict[int, int] = {}
    really = Step.units
    for parts in (100, 10_000):
        plan = Plan("digest", {}, parts, 0, (1,) * parts, Counter(remove=parts))
        state = RunState(RunFolder(tmp_path), plan, STEPS)
        for later in STEPS:
            for unit in range(later.unit_count(parts)):
                state._done[later.name][unit] = True
        state.refresh(step, 0)
        count = Counter()

        def units(self, some, count=count):
            found = really(self, some)
            count["units"] += len(found)
            return found

        with monkeypatch.context() as patch:
            patch.setattr(Step, "units", units)
            for unit in range(1, 50):
                state.refresh(step, unit)
        touched[parts] = count["units"]
        assert not state._done["select"].keys() & ({0, *range(1, 50)} if step.wide else range(parts))
    assert touched[10_000] == touched[100]
