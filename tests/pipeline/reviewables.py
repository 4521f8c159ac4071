"""Reviewable rows without a run, and verdicts about them."""

from pipeline.verdicts.population import Reviewable
from pipeline.verdicts.strata import Drawn
from pipeline.verdicts.verdict import Verdict


def row_id(number: int) -> str:
    return f"{number:032x}"


def reviewable(
    number: int,
    *,
    task: str = "color",
    kept: bool = True,
    directions: tuple[float, ...] = (0.5,),
    caption: str = "",
) -> Reviewable:
    """A row whose candidates have these values of ``clip_direction``; a kept one has chosen the first."""
    return Reviewable(
        id=row_id(number),
        turn=1,
        part=0,
        task=task,
        caption=caption or f"caption {number}",
        scores=[{"clip_direction": value} for value in directions],
        choice=0 if kept else None,
        anchor_hash=number,
        candidate_hashes=[number * 10 + k for k in range(len(directions))],
    )


def verdicts_about(drawn: Drawn, right: bool, who: str = "anna", design: str = "d") -> list[Verdict]:
    """Verdicts of one person about all candidates of a drawn row."""
    row = drawn.row
    return [
        Verdict(
            id=row.id,
            candidate=k,
            verdict="right" if right else "wrong",
            who=who,
            anchor_hash=row.anchor_hash,
            candidate_hash=row.candidate_hashes[k],
            stratum=drawn.stratum,
            stratum_rows=drawn.stratum_rows,
            design=design,
        )
        for k in range(len(row.scores))
    ]
