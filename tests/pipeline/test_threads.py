import subprocess
import sys

from tests.pipeline.runs import ROOT


def test_importing_the_pipeline_imports_no_model_and_no_ray():
    code = (
        "import sys, pipeline.cli, pipeline.engine.generate, pipeline.views.status; "
        "import pipeline.engine.ray_backend; "
        "heavy = {'torch', 'ray', 'diffusers', 'transformers'} & set(sys.modules); "
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_limit_holds_for_torch_loaded_before_and_after():
    code = (
        "from pipeline.engine.threads import limit_threads; limit_threads(2); "
        "import torch; assert torch.get_num_threads() == 2; "
        "limit_threads(1); assert torch.get_num_threads() == 1"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
