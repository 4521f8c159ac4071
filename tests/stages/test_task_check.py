"""The task check: labels move only where the predictor is sure, and both are recorded."""

from collections.abc import Mapping, Sequence

import pyarrow as pa
import pytest

from stages.base import Weights
from stages.models.classifier import SequenceClassifier
from stages.task_check.stage import TaskCheck, TaskCheckConfig
from stages.tasks import Tasks
from tests.stages.tiny_shards import given_row, published
from tests.stages.tiny_tasks import tiny_task

TASKS = Tasks(
    {name: tiny_task(name, index=index) for index, name in enumerate(("local", "remove"))}, known=["style"]
)
PREDICTOR = Weights(model="toybox/weights/task_predictor")


class Fixed:
    """Says the same of every instruction."""

    def __init__(self, **probabilities: float) -> None:
        self.probabilities = probabilities

    def predict(self, instructions: Sequence[str], batch: int) -> list[Mapping[str, float]]:
        return [self.probabilities] * len(instructions)


def checked(planned: str, predictor=None, **config) -> dict:
    rows = pa.table({"id": ["a"], "task": [planned], "instruction": ["remove the ball"]})
    [row] = TaskCheck(TaskCheckConfig(**config), TASKS, predictor)(rows).to_pylist()
    assert (row["status"], row["reason"]) == ("kept", "")
    return row


def test_without_a_predictor_a_row_keeps_its_task():
    row = checked("local")
    assert row["checked_task"] == "local"
    assert row["predicted_task"] is row["prediction_confidence"] is None


@pytest.mark.parametrize(
    ("probabilities", "task"),
    [
        ({"local": 0.02, "remove": 0.98}, "remove"),
        ({"local": 0.2, "remove": 0.8}, "local"),
        ({"local": 0.95, "remove": 0.05}, "local"),
        ({"style": 0.99, "local": 0.01}, "local"),
    ],
    ids=["sure", "unsure", "as planned", "not a task of this run"],
)
def test_a_row_is_moved_where_the_predictor_is_sure(probabilities, task):
    row = checked("local", Fixed(**probabilities), confidence=0.9)
    assert row["checked_task"] == task
    predicted = max(probabilities, key=probabilities.get)
    assert (row["predicted_task"], row["prediction_confidence"]) == (
        predicted,
        pytest.approx(probabilities[predicted]),
    )


@pytest.mark.parametrize("share", [float("nan"), float("inf")])
@pytest.mark.parametrize("label", ["local", "remove"])
def test_a_prediction_that_is_not_finite_fails_its_row(share, label):
    rows = pa.table({"id": ["a"], "task": ["local"], "instruction": ["remove the ball"]})
    predictor = Fixed(**{"local": 0.1, "remove": 0.2, label: share})
    [row] = TaskCheck(TaskCheckConfig(), TASKS, predictor)(rows).to_pylist()
    assert row["status"] == "failed"
    assert row["reason"].startswith("NotFiniteError: task_check: the predictor's output is not finite")


def test_a_predictor_with_labels_of_no_task_is_refused():
    with pytest.raises(ValueError, match=r"task_check\.predictor\.\w+: there is no such task"):
        TaskCheck(TaskCheckConfig(predictor=PREDICTOR), TASKS)


@pytest.mark.parametrize(
    ("instruction", "task"),
    [
        ("remove the red ball", "remove"),
        ("add a blue house to the left of the tree", "add"),
        ("turn the ball into a house", "local"),
        ("make it night", "global"),
        ("draw a box around the striped boat", "detect"),
        ("increase the contrast strongly", "adjust"),
    ],
)
def test_the_toybox_s_predictor_knows_its_world(predictor, instruction, task):
    [probabilities] = predictor.predict([instruction], 4)
    assert sum(probabilities.values()) == pytest.approx(1, abs=1e-4)
    assert max(probabilities, key=probabilities.get) == task


@pytest.fixture(scope="module")
def predictor() -> SequenceClassifier:
    return SequenceClassifier(PREDICTOR, max_tokens=32)


def test_a_row_does_not_depend_on_its_neighbours(predictor):
    texts = [f"{verb} the {color} ball" for verb in ("remove", "mask", "color") for color in ("red", "blue")]
    together = predictor.predict(texts, 4)
    assert together == [predictor.predict([text], 4)[0] for text in texts]


def test_a_long_or_an_empty_instruction_is_read_too(predictor):
    for text in ("remove " * 500, ""):
        assert sum(predictor.predict([text], 4)[0].values()) == pytest.approx(1, abs=1e-4)


def test_an_instruction_with_words_that_the_predictor_does_not_know_moves_no_label(predictor):
    text = "\u5220\u9664\u7403 \U0001f388"  # Latin words it spells by letter
    assert predictor.predict([text], 4) == [{}]
    rows = pa.table({"id": ["a"], "task": ["local"], "instruction": [text]})
    [row] = TaskCheck(TaskCheckConfig(), TASKS, predictor)(rows).to_pylist()
    assert (row["checked_task"], row["predicted_task"]) == ("local", None)


def test_a_moved_row_is_published_with_both_tasks():
    [row] = published([{**given_row("remove"), "checked_task": "background"}]).to_pylist()
    assert (row["task"], row["TI"], row["task_planned"]) == ("background", 4, "remove")
    assert row["T_inverse"] is row["TI_inverse"] is None, "the way back was worded for the planned task"
    [stays] = published([given_row("remove")]).to_pylist()
    assert (stays["task"], stays["TI"], stays["task_planned"]) == ("remove", 1, "remove")
    assert stays["TI_inverse"] == 2
