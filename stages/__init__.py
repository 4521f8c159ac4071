"""The stages of the pipeline (``stages.base.Stage``), in order. Importing them loads no model library."""

from stages.edit import Edit
from stages.filter import Filter
from stages.instruct import Instruct
from stages.mask import Mask
from stages.score import Score
from stages.select import Select
from stages.shards import Shards
from stages.source import Source
from stages.task_check import TaskCheck

STAGES: dict[str, type] = {
    "instruct": Instruct,
    "task_check": TaskCheck,
    "source": Source,
    "mask": Mask,
    "edit": Edit,
    "score": Score,
    "filter": Filter,
    "select": Select,
    "shards": Shards,
}
