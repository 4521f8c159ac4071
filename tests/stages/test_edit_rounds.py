"""The candidates of later rounds: stated in the manifest, or the first round's with other masks and gates."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from stages.candidate import Candidate
from stages.edit.prompt_to_prompt.windows import idle_gate
from stages.edit.rounds import RoundCandidates, varied
from stages.tasks import Tasks
from tests.stages.tiny_tasks import tiny_task

STEPS = 20
ONE, TWO, THREE = (Candidate(cross_until=until) for until in (0.2, 0.4, 0.6))
TASKS = Tasks({"local": tiny_task(candidates=[ONE, TWO]), "color": tiny_task("color", candidates=[ONE])})

fraction = st.sampled_from([0.0, 0.05, 0.1, 0.3, 0.5, 0.75, 0.9, 1.0])
count = st.none() | st.integers(0, STEPS)


@st.composite
def candidates(draw) -> Candidate:
    keys = {
        "mask": draw(st.sampled_from(["soft", "precise", "smooth", "box", "none"])),
        **{key: draw(fraction) for key in ("cross_from", "cross_until", "self_from", "self_until")},
        "changed_until": draw(st.none() | fraction),
    }
    if draw(st.booleans()):
        keys |= {"cross_until": 0.0, "cross_from": 0.0, "cross_steps": draw(count)}
    if draw(st.booleans()):
        keys |= {"self_until": 0.0, "self_from": 0.0, "self_steps": draw(count)}
    try:
        made = Candidate(**keys)
    except ValidationError:
        made = Candidate(control="self", strength=(0.2, 0.9))
    return made if not idle_gate(made, STEPS) else Candidate(cross_until=0.5)


@given(candidate=candidates(), round=st.integers(2, 9))
def test_a_varied_candidate_is_a_valid_one_with_open_gates_and_another_mask(candidate, round):
    other = varied(candidate, round, STEPS)
    assert Candidate(**dict(other)) == other
    assert not idle_gate(other, STEPS)
    assert other.mask != candidate.mask or other.mask == "none" or round == 4 or round == 7
    for key in ("cross", "self"):
        assert bool(getattr(other, f"{key}_until")) == bool(getattr(candidate, f"{key}_until"))
    if candidate.cross_until and not candidate.cross_from and candidate.cross_until < 0.8:
        longer = other.cross_until > candidate.cross_until
        shorter = other.cross_until < candidate.cross_until
        assert longer if round % 2 == 0 else shorter or candidate.cross_until < 0.1


def test_numbers_go_on_from_round_to_round():
    made = RoundCandidates(TASKS, {}, {"local": [[THREE], [ONE, THREE, TWO]]}, STEPS)
    assert [made.of("local", round) for round in (1, 2, 3, 4)] == [
        (ONE, TWO), (THREE,), (ONE, THREE, TWO), (ONE, THREE, TWO),
    ]  # fmt: skip
    assert [made.before("local", round) for round in (1, 2, 3, 4)] == [0, 2, 3, 6]
    numbered = [made.numbered("local", number) for number in range(9)]
    assert numbered == [c for round in (1, 2, 3, 4) for c in made.of("local", round)]
    assert [made.most(round, cheap=False) for round in (1, 2, 3)] == [2, 1, 3]
    assert made.numbered("color", 2) == made.of("color", 3)[0] == varied(ONE, 3, STEPS)


def test_the_manifest_replaces_the_first_round_and_later_rounds_vary_that():
    made = RoundCandidates(TASKS, {"color": [TWO]}, {}, STEPS)
    assert made.of("color", 1) == (TWO,)
    assert made.of("color", 2) == (varied(TWO, 2, STEPS),)
    assert set(made.stated()) == {ONE, TWO}


@pytest.mark.parametrize(
    ("rounds", "message"),
    [
        ({"locl": [[ONE]]}, r"edit\.rounds\.locl: there is no such task; tasks: color, local"),
        ({"local": [[ONE], []]}, r"edit\.rounds\.local: prompt2prompt needs at least one"),
        ({"color": [[Candidate(self_until=0.01)]]}, "self_until = 0.01 touches none of diffusion.steps = 20"),
    ],
)
def test_candidates_of_a_round_that_cannot_be_drawn_are_refused(rounds, message):
    with pytest.raises(ValueError, match=message):
        RoundCandidates(TASKS, {}, rounds, STEPS)
