"""A relative depth model of transformers, such as DPT or Depth Anything."""

import numpy as np
import torch
from transformers import AutoImageProcessor, AutoModelForDepthEstimation

from stages.base import Weights
from stages.finite import NotFiniteError
from stages.models.device import default_device
from stages.models.weights import load_model, load_processor


class DepthEstimator:
    """A depth model; errors name its manifest key."""

    def __init__(self, weights: Weights, key: str) -> None:
        self.device, self.stage = default_device(), key.split(".")[0]
        self.processor = load_processor(AutoImageProcessor, weights, key)
        self.model = load_model(AutoModelForDepthEstimation, weights, key)
        self.model.to(self.device).eval()

    @torch.no_grad()
    def nearness(self, image: np.ndarray) -> np.ndarray:
        """Relative nearness in a picture uint8 [H,W,3]: float32 [H,W] in [0,1], 1 nearest, 0 farthest.

        Raises:
            NotFiniteError: the model's depth is not finite.
        """
        inputs = self.processor(images=image, return_tensors="pt").to(self.device)
        outputs = self.model(**inputs)
        (found,) = self.processor.post_process_depth_estimation(outputs, target_sizes=[image.shape[:2]])
        depth = found["predicted_depth"].float().cpu().numpy()
        with np.errstate(over="ignore", invalid="ignore"):
            span = float(depth.max() - depth.min())  # infinite also if finite depths are too far apart
        if not np.isfinite(span) or not np.isfinite(depth).all():
            raise NotFiniteError(self.stage, "the depth map")
        return (depth - depth.min()) / (span or 1.0)
