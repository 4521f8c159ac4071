"""The device for the models of this process, and their precision. No other module chooses a device."""

from contextlib import AbstractContextManager, nullcontext

import torch


def default_device() -> torch.device:
    """The worker's GPU if it has one, otherwise the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def computing_in(dtype: str, device: torch.device) -> AbstractContextManager[object]:
    """A context in which a model computes in a precision. Its weights stay as they are.

    In half precision, torch leaves operations in float32 that need it (autocast).
    """
    return nullcontext() if dtype == "float32" else torch.autocast(device.type, getattr(torch, dtype))
