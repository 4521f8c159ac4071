"""What do the metrics of the measure stage add to a calibrated filter, and what do they cost?

    python -m toybox.studies.further_metrics runs/editor-pairs runs/toybox     # docs/further-metrics.md

The stage's instruments measure every Prompt-to-Prompt candidate about which the filter of a run has decided.
The runs stay as they are. The independent judge's verdicts about half of the captions of the first run
calibrate filters with and without these metrics; the other half and the other runs test them. LPIPS and
DINOv2 are left out: no weights could be had where this was written.
"""

import argparse
import hashlib
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track

from pipeline.api import Run, open_run
from pipeline.verdicts.estimate import Known, known_rows
from pipeline.verdicts.population import reviewable
from pipeline.verdicts.verdict import Verdict
from pipeline.views.rows import rows
from stages.filter.stage import FilterConfig
from stages.measure.config import MeasureConfig
from stages.measure.stage import Measure
from stages.pictures.fidelity import as_float, mean_change, roughness
from stages.pictures.region import MaskedRegion
from stages.pictures.seam import seam
from stages.score.evidence import Row
from stages.score.metrics import FURTHER
from stages.score.stage import ScoreConfig
from toybox.evaluation.judge import Judge
from toybox.evaluation.verdicts import WHO, verdict_lines
from toybox.studies.further_tables import KEYS, PRECISION, filter_table, seam_table, single_table

REPORT = Path(__file__).parents[2] / "docs" / "further-metrics.md"
STEP = 0.06
"""How much lighter an area with a planted seam is, of a range of 1."""


@dataclass(frozen=True)
class Measured:
    """Judged rows with the further metrics, in two halves by caption; seconds of CPU by key."""

    halves: tuple[Sequence[Known], Sequence[Known]]
    seconds: Mapping[str, float]
    rows: int
    seams: Sequence[tuple[Mapping[str, float], Mapping[str, float]]]
    """Pixel metrics of right candidates, and of the same with a planted seam."""


def read(folder: Path, judge: Judge) -> Measured:
    """Measure and judge the rows of a run."""
    run = open_run(folder)
    population = [row for row in reviewable(run.state) if run.tasks[row.task].method == "prompt2prompt"]
    verdicts = [
        Verdict(id=row, candidate=candidate, verdict=verdict, who=WHO)
        for row, candidate, verdict, _ in verdict_lines(folder, judge)
    ]
    known = known_rows(population, verdicts)
    seconds: dict[str, float] = defaultdict(float)
    right = {(row.row.id, k) for row in known for k, is_right in enumerate(row.right) if is_right}
    wanted = {row.row.id for row in known}
    values, seams = {}, []
    stage = measure_stage(run)
    for row in track([*_pictures(run, wanted)], f"measuring {folder.name}"):
        values[row.record["id"]] = _measure(stage, row, seconds)
        seams += [
            pair for k in range(len(row.pairs)) if (row.record["id"], k) in right for pair in planted(row, k)
        ]
    known = [
        replace(
            row,
            row=replace(
                row.row,
                scores=[
                    {**scores, **further}
                    for scores, further in zip(row.row.scores, values[row.row.id], strict=True)
                ],
            ),
        )
        for row in known
    ]
    halves = tuple([row for row in known if half_of(row.row.caption) == half] for half in (0, 1))
    return Measured((halves[0], halves[1]), seconds, len(values), seams)


def measure_stage(run: Run) -> Measure:
    """The stage with everything that needs no other model than the run has."""
    score = run.manifest.section("score", ScoreConfig)
    section = MeasureConfig(
        clip=score.clip, grounding=score.grounding, seam=True, counts=True, region_clip=True
    )
    return Measure(section, run.tasks)


def _pictures(run: Run, wanted: set[str]) -> Iterator[Row]:
    step = next(step for step in run.state.steps.values() if step.stage == "filter")
    reads = {**Measure.reads, "filter": ()}
    for part in range(run.state.plan.parts):
        if run.state.done(step, part):
            for record in rows(run.state, part, reads):
                if record["id"] in wanted:
                    yield Row(run.tasks[record["task"]], record)


def _measure(stage: Measure, row: Row, seconds: dict[str, float]) -> list[dict[str, float | None]]:
    found: list[dict[str, float | None]] = [dict.fromkeys(FURTHER) for _ in row.pairs]
    for key, instrument in zip(KEYS, stage.instruments, strict=True):
        begun = time.process_time()
        (values,) = instrument.measure([row], 8)
        seconds[key] += time.process_time() - begun
        for scores, of_one in zip(found, values, strict=True):
            scores.update(of_one)
    return found


def planted(row: Row, place: int) -> Iterator[tuple[dict[str, float], dict[str, float]]]:
    """Pixel metrics of a candidate and of its copy that is lighter by ``STEP`` inside a sharp mask."""
    if row.task.region == "all":
        return
    anchor, drawn = as_float(row.images[0]), as_float(row.images[1 + place])
    region = MaskedRegion.from_row(row.record)
    mask = region.edit_mask(row.task.region, row.record["candidates"][place]["mask"])
    lighter = np.clip(drawn + STEP * (mask[..., None] >= 0.5), 0, 1).astype(np.float32)
    inside, outside = row.metric_regions

    def metrics(picture: np.ndarray) -> dict[str, float]:
        values = {
            "seam": seam(anchor, picture, mask),
            "change_inside": mean_change(anchor, picture, inside),
            "change_outside": mean_change(anchor, picture, outside),
            "roughness": roughness(picture),
        }
        return {name: value for name, value in values.items() if value is not None}

    yield metrics(drawn), metrics(lighter)


def half_of(caption: str) -> int:
    return hashlib.blake2b(caption.encode()).digest()[0] % 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("calibration", type=Path, help="the folder of a run of a toybox manifest")
    parser.add_argument("test", type=Path, nargs="+", help="folders of runs with other seeds")
    options = parser.parse_args()
    judge, opened = Judge.load(), open_run(options.calibration)
    first, *others = (read(run, judge) for run in (options.calibration, *options.test))
    train = first.halves[0]
    test = [*first.halves[1], *(row for other in others for half in other.halves for row in half)]
    total = sum(each.rows for each in (first, *others))
    cost = {key: sum(each.seconds[key] for each in (first, *others)) / total for key in KEYS}
    config = opened.manifest.section("filter", FilterConfig)
    filters = "\n".join(filter_table(train, test, opened.tasks, config, cost))
    singles = "\n".join(single_table(test))
    seams = [pair for each in (first, *others) for pair in each.seams]
    runs = " ".join(f"runs/{run.name}" for run in (options.calibration, *options.test))
    report = TEXT.format(
        command=f"python -m toybox.studies.further_metrics {runs}",
        date=date.today(),
        train=len(train),
        test=len(test),
        precision=PRECISION,
        filters=filters,
        singles=singles,
        pairs=len(seams),
        step=STEP,
        seams="\n".join(seam_table(seams)),
    )
    REPORT.write_text(report, encoding="utf-8")
    Console(soft_wrap=True).print(report, markup=False)


TEXT = """\
# What the metrics of the measure stage add

`{command}`, {date}.

Filters were calibrated to the independent judge's verdicts about {train} rows (half of the captions of the
first run; wanted precision {precision:g}) and applied to {test} rows that they have not seen: the other half,
and the other runs. *Ranked right* is how often a right candidate is more probable than a wrong one. CPU-s are
those of the instruments alone, on one core, for one row after the other; in batches they are fewer
([metrics.md](metrics.md)).

{filters}

## Each metric alone

How often a right candidate has the better value than a wrong one (0.5: the metric tells nothing).

{singles}

## A planted seam

The judge reads objects, colours and places, and no seams. {pairs} right candidates were made lighter by
{step:g} inside their own mask, with a sharp edge. How often does the copy have the greater value?

{seams}
"""


if __name__ == "__main__":
    main()
