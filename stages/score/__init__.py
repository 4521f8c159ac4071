"""Every metric of every candidate, and no decision."""

from stages.score.metrics import METRICS
from stages.score.stage import ClipConfig, Score

__all__ = ["METRICS", "ClipConfig", "Score"]
