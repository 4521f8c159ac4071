"""The rounds of a run: how many rows each round drew and kept, and the time it took."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.engine.ledger import StageCount
from pipeline.engine.state import RunState
from pipeline.shown import DataTable, plain_table
from pipeline.store.events import Spent


@dataclass(frozen=True)
class RoundCount:
    """One round of a turn."""

    turn: int
    round: int
    drawn: int
    """Rows that the round began."""
    kept: int
    """Rows that left the rounds with a passing candidate."""
    pending: int
    spent: Spent
    """The time of its stages."""
    first: int
    """Rows that the first round of the turn began."""
    so_far: int
    """Rows kept in this round and the rounds before it."""

    @property
    def name(self) -> str:
        return f"round {self.round}" if self.turn == 1 else f"turn {self.turn}, round {self.round}"


def count_rounds(
    state: RunState, counts: Sequence[StageCount], spent: Mapping[str, Spent]
) -> list[RoundCount]:
    """The rounds of every turn, in order; empty for a run of one round."""
    by_name = {count.name: count for count in counts}
    rounds: list[RoundCount] = []
    for turn in sorted({step.turn for step in state.steps.values()}):
        of_turn = [step for step in state.steps.values() if step.turn == turn]
        repeated = {step.stage for step in of_turn if step.round > 1}
        first = so_far = 0
        for round in sorted({step.round for step in of_turn}) if repeated else ():
            names = [step.name for step in of_turn if step.round == round and step.stage in repeated]
            names = names[1:] if turn > 1 and round == 1 else names  # the turn's own beginning draws nothing
            drawn, kept = by_name[names[0]].given.total(), by_name[names[-1]].kept.total()
            first, so_far = first or drawn, so_far + kept
            pending = sum(by_name[name].pending.total() for name in names)
            time = sum((spent[name] for name in names), Spent())
            rounds.append(RoundCount(turn, round, drawn, kept, pending, time, first, so_far))
    return rounds


def rounds_table(rounds: Sequence[RoundCount]) -> DataTable:
    """One line per round: rows drawn and kept, share kept, share kept so far, and the time of a kept row."""
    table = plain_table(*HEAD)
    for line in lines_of(rounds):
        table.add_row(*line)
    return table


HEAD = ("round", "drawn", "kept", "share", "kept so far", "pending", "CPU-s a kept", "GPU-s a kept")


def lines_of(rounds: Sequence[RoundCount]) -> list[list[str]]:
    """The cells of the table by round; empty cells where nothing was kept."""
    return [
        [
            count.name,
            str(count.drawn),
            str(count.kept),
            f"{count.kept / count.drawn:.0%}" if count.drawn else "",
            f"{count.so_far} of {count.first} ({count.so_far / count.first:.0%})" if count.first else "",
            str(count.pending),
            f"{count.spent.cpu_seconds / count.kept:.2f}" if count.kept else "",
            f"{count.spent.gpu_seconds / count.kept:.2f}" if count.kept else "",
        ]
        for count in rounds
    ]
