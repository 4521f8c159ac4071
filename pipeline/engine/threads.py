"""The number of usable CPUs, and the number of threads per worker (a manifest key, for both engines)."""

import os
import sys

VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")


def usable_cpus() -> int:
    """CPUs that this process may run on. Where the system does not tell (macOS), all CPUs."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def thread_variables(threads: int) -> dict[str, str]:
    """Environment variables of a worker process. Libraries read them when they are first imported."""
    return {**dict.fromkeys(VARIABLES, str(threads)), "TOKENIZERS_PARALLELISM": "false"}


def limit_threads(threads: int) -> None:
    """Limit the threads of this process, whatever is already imported.

    torch gets the largest power of two. It cuts a tensor into one piece per thread, and computes the last
    elements of a piece with another function if they fill no register. A third of a tensor often ends within
    a row, so that the row's last bits would depend on its place in the batch.

    Call it again after loading the stage.
    """
    os.environ.update(thread_variables(threads))
    for name, function, allowed in (
        ("torch", "set_num_threads", 1 << threads.bit_length() - 1),
        ("cv2", "setNumThreads", threads),
    ):
        module = sys.modules.get(name)
        if module is not None:
            getattr(module, function)(allowed)
