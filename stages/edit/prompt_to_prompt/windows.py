"""The windows of a candidate: between which steps it takes the source's attention, and checks of them.

Separate from the gates (:mod:`stages.edit.prompt_to_prompt.gates`), because the checks run before a run
starts and must not import torch.
"""

from collections.abc import Mapping, Sequence

from pydantic import ValidationError

from stages.tasks import Candidate, Task, Tasks

Window = tuple[float, float]
"""Begin and end of a gate, as fractions of the steps."""


def count_window(count: int, steps: int, *, cross: bool) -> Window:
    """The window of the first ``count`` steps.

    Raises:
        ValueError: ``count`` is larger than ``steps``.
    """
    if not 0 <= count <= steps:
        raise ValueError(f"a gate over {count} steps, but diffusion.steps is {steps}")
    # Half a step more: the published code rounds down, and then reaches the count exactly.
    return 0.0, (count + 0.5) / (steps + 1 if cross else steps) if count else 0.0


def windows(candidate: Candidate, steps: int) -> tuple[Window, Window]:
    """The windows of cross- and self-attention, as fractions of the steps."""
    cross: Window = (candidate.cross_from, candidate.cross_until)
    self_: Window = (candidate.self_from, candidate.self_until)
    if candidate.cross_steps is not None:
        cross = count_window(candidate.cross_steps, steps, cross=True)
    if candidate.self_steps is not None:
        self_ = count_window(candidate.self_steps, steps, cross=False)
    return cross, self_


def with_candidates(
    tasks: Tasks, candidates: Mapping[str, Sequence[Candidate]], key: str = "edit.candidates"
) -> Tasks:
    """The tasks, with some tasks' candidates replaced.

    Candidates of a task outside the run's mixture are ignored, because a manifest can be run with another
    mixture.

    Raises:
        ValueError: there is no such task, or a candidate does not fit its task. The message names ``key``.
    """
    tasks.check_known(candidates, key)
    changed = dict(tasks)
    for name, own in candidates.items():
        if name not in tasks:
            continue
        try:
            changed[name] = Task(**{**dict(tasks[name]), "candidates": tuple(own)})
        except ValidationError as error:
            reason = error.errors()[0]["msg"].removeprefix("Value error, ")
            raise ValueError(f"{key}.{name}: {reason}") from error
    return Tasks(changed, tasks.known)


def check_gates(steps: int, tasks: Tasks) -> None:
    """Refuse a gate that is open for a fraction of the steps but, after rounding, in no step.

    Raises:
        ValueError: a gate is open in no step. The message names the task, the key and the number of steps.
    """
    for task in tasks.values():
        for index, candidate in enumerate(task.candidates):
            where = f"task {task.name}: candidates[{index}]"
            try:
                idle = idle_gate(candidate, steps)
            except ValueError as error:
                raise ValueError(f"{where}: {error}") from error
            if idle:
                raise ValueError(
                    f"{where}.{idle} touches none of diffusion.steps = {steps} steps: raise it, or "
                    "set it to 0"
                )


def idle_gate(candidate: Candidate, steps: int) -> str:
    """A gate that is open for a fraction of the steps but in no step, such as ``self_until = 0.01``; or "".

    Raises:
        ValueError: a gate is open in more steps than there are.
    """
    cross, self_ = windows(candidate, steps)
    # The steps of the published gates (stages.edit.prompt_to_prompt.gates), without their tensors.
    cross_steps = range(int(cross[0] * (steps + 1)), min(steps, int(cross[1] * (steps + 1))))
    self_steps = range(int(steps * self_[0]), int(steps * self_[1]))
    for key, end, touched in (("cross", cross[1], cross_steps), ("self", self_[1], self_steps)):
        if end > 0 and not touched:
            return f"{key}_until = {end:g}"
    return ""
