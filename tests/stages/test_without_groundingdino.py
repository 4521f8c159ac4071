"""With transformers' detector, groundingdino-py is not imported: it need not be installed."""

import subprocess
import sys

from tests.stages.segmenter_weights import sam_in_transformers
from tests.stages.test_weights import _save_transformers_detector
from tests.stages.tiny_models import SEGMENTER, save_segmenter

MASK_AND_FIND = """
import sys
sys.modules["groundingdino"] = None     # importing it raises an error
import numpy as np, pyarrow as pa
from stages.mask.stage import Mask
from stages.pictures.png import encode_png
from stages.tasks import Tasks
from tests.stages.tiny_tasks import tiny_task

everything = {"box_threshold": 0, "text_threshold": 0}
section = {"grounding": {"model": sys.argv[1], **everything}, "segmenter": {"model": sys.argv[2]}}
config = Mask.Config.model_validate({**section, "min_area": 0, "max_area": 1})
tasks = Tasks({"local": tiny_task()})
assert list(Mask.problems(config, tasks)) == []
picture = encode_png(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
rows = {"id": ["a"], "task": ["local"], "source_image": [picture]}
rows |= {name: ["a red car"] for name in ("edited_object", "original_object")}
[row] = Mask(config, tasks)(pa.table(rows)).to_pylist()
print(row["status"], row["reason"], len(row["boxes"]) > 0, row["precise_mask"] is not None)
"""


def test_the_mask_stage_runs_without_it(tmp_path):
    (tmp_path / "detector").mkdir()
    _save_transformers_detector(tmp_path / "detector")
    for part in sam_in_transformers(save_segmenter(tmp_path / "published"), SEGMENTER):
        part.save_pretrained(tmp_path / "segmenter")
    arguments = [str(tmp_path / "detector"), str(tmp_path / "segmenter")]
    done = subprocess.run([sys.executable, "-c", MASK_AND_FIND, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "kept  True True"
