"""The device for the models of this process. No other module chooses one."""

import torch


def default_device() -> torch.device:
    """The worker's GPU if it has one, otherwise the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
