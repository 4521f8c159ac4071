from pipeline.calibration.examples import examples_of
from stages.tasks import Tasks
from tests.pipeline.judged_rows import judged
from tests.stages.tiny_tasks import tiny_task


def test_metrics_of_the_way_back_do_not_decide_about_the_pair():
    back = {"index": 1, "instruction": "add {original_object}"}
    tasks = Tasks({"local": tiny_task(metrics=("clip_image", "inverse_present"), inverse=back)})
    known = [
        judged(number, [{"clip_image": 0.1 * number, "inverse_present": 0.1 * number}], [number > 2])
        for number in range(5)
    ]
    assert examples_of(known, tasks)["local"].metrics == ("clip_image",)
