"""How many threads a worker computes with: a manifest key, the same for Ray and the local engine."""

import os
import sys

VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")


def thread_variables(threads: int) -> dict[str, str]:
    """The environment of a worker process; libraries read it when they are first imported."""
    return {**dict.fromkeys(VARIABLES, str(threads)), "TOKENIZERS_PARALLELISM": "false"}


def limit_threads(threads: int) -> None:
    """Limit this process, whatever it has imported so far; call again once the stage is loaded."""
    os.environ.update(thread_variables(threads))
    for name, function in (("torch", "set_num_threads"), ("cv2", "setNumThreads")):
        module = sys.modules.get(name)
        if module is not None:
            getattr(module, function)(threads)
