"""The stages of the pipeline (``stages.base.Stage``), in order. Importing them loads no model library."""

from typing import Any

from stages.base import Stage
from stages.describe.stage import Describe
from stages.edit.stage import Edit
from stages.filter.stage import Filter
from stages.instruct.stage import Instruct
from stages.judge.stage import JudgeStage
from stages.mask.stage import Mask
from stages.measure.stage import Measure
from stages.score.stage import Score
from stages.select.stage import Select
from stages.shards.stage import Shards
from stages.shorten.stage import Shorten
from stages.source.stage import Source
from stages.task_check.stage import TaskCheck

STAGES: dict[str, type[Stage[Any]]] = {
    "describe": Describe,
    "shorten": Shorten,
    "instruct": Instruct,
    "task_check": TaskCheck,
    "source": Source,
    "mask": Mask,
    "edit": Edit,
    "score": Score,
    "measure": Measure,
    "judge": JudgeStage,
    "filter": Filter,
    "select": Select,
    "shards": Shards,
}
