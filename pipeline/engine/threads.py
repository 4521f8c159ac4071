"""CPUs there are, and how many threads a worker computes with (a manifest key, the same for both engines)."""

import os
import sys

VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")


def usable_cpus() -> int:
    """CPUs that this process may run on; where the system does not tell (macOS), all there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


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
