"""Where models of this process compute. The only place that decides it."""

import torch


def default_device() -> torch.device:
    """The worker's GPU if it was given one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
