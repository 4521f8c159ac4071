"""Train the toybox's SAM: from a box to the mask of the visible part of an object.

The loss follows Segment Anything, with cross-entropy in place of its focal term: the single mask, the best of
the three ambiguous masks, and the predicted IoU.
"""

from pathlib import Path

import cv2
import numpy as np
import torch
from safetensors.torch import load_model, save_model
from segment_anything.modeling import Sam
from torch import Tensor
from torch.nn import functional as F

from stages.models.segmenter.architecture import Architecture, Encoder, build
from stages.models.segmenter.published_segmenter import PublishedSegmenter
from toybox.recipes.labelled import Labelled, degraded, held_out_pictures, training_pictures
from toybox.recipes.training import DEVICE, WEIGHTS, Schedule, Training, first_step, half
from toybox.world.scene import SIZE, box_of

FOLDER = WEIGHTS / "segmenter"
ARCHITECTURE = Architecture(
    image_size=SIZE,
    patch_size=4,
    encoder=Encoder(
        embed_dim=96, depth=4, num_heads=4, mlp_ratio=3, global_attn_indexes=(0, 1, 2, 3), window_size=0
    ),
    prompt_embed_dim=64,
    mask_in_chans=8,
    decoder_mlp_dim=128,
    decoder_num_heads=4,
    iou_head_depth=2,
    iou_head_hidden_dim=64,
)
BATCH = 32
JITTER = 0.06
"""Boxes are moved by up to this fraction of their side, to imitate a detector's errors."""
SCHEDULE = Schedule(steps=1000, learning_rate=1e-3, warmup=50, plateau=0.2, average=0.995)


def sample_batch(pictures: Labelled, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Images [b,3,h,w] in [0,255], masks [b,1,h,w] in [0,1] and jittered boxes [b,4] in pixels."""
    images: list[np.ndarray] = []
    masks: list[np.ndarray] = []
    boxes: list[np.ndarray] = []
    while len(images) < BATCH:
        index = int(rng.integers(len(pictures.scenes)))
        things = len(pictures.scenes[index].things)
        if not things:
            continue
        image, mask = pictures.images[index], pictures.masks[index, rng.integers(things)]
        if rng.random() < 0.5:
            image, mask = np.ascontiguousarray(image[:, ::-1]), np.ascontiguousarray(mask[:, ::-1])
        images.append(degraded(image, rng))
        masks.append(mask)
        boxes.append(jittered(box_of(mask / 255), rng))
    pixels = torch.from_numpy(np.stack(images)).to(DEVICE).permute(0, 3, 1, 2).float()
    targets = torch.from_numpy(np.stack(masks)).to(DEVICE)[:, None].float() / 255
    return pixels, targets, torch.from_numpy(np.stack(boxes)).to(DEVICE)


def jittered(box: tuple[int, int, int, int], rng: np.random.Generator) -> np.ndarray:
    """A box with each edge moved by up to JITTER of the side, float32 [4]."""
    x0, y0, x1, y1 = box
    reach = JITTER * np.array([x1 - x0, y1 - y0] * 2)
    return np.clip(np.array(box) + rng.uniform(-reach, reach), 0, SIZE).astype(np.float32)


def predict(model: Sam, pixels: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Logits [b,4,h,w] and predicted IoUs [b,4] for one box per picture.

    The same as ``MaskDecoder.predict_masks``, which takes many boxes but only one picture.
    """
    decoder, prompts = model.mask_decoder, model.prompt_encoder
    embedding = model.image_encoder(model.preprocess(pixels))
    sparse, dense = prompts(points=None, boxes=boxes[:, None], masks=None)
    source = embedding + dense
    b, c, h, w = source.shape
    tokens = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])[None].expand(b, -1, -1)
    positions = prompts.get_dense_pe().expand(b, -1, -1, -1)
    hidden, source = decoder.transformer(source, positions, torch.cat([tokens, sparse], 1))
    upscaled = decoder.output_upscaling(source.transpose(1, 2).view(b, c, h, w))
    count = decoder.num_mask_tokens
    mixes = [decoder.output_hypernetworks_mlps[k](hidden[:, 1 + k]) for k in range(count)]
    logits = torch.einsum("bkc,bchw->bkhw", torch.stack(mixes, 1), upscaled)
    return logits, decoder.iou_prediction_head(hidden[:, 0])


def loss_of_batch(model: Sam, pixels: Tensor, masks: Tensor, boxes: Tensor) -> dict[str, Tensor]:
    logits, quality = predict(model, pixels, boxes)
    logits = F.interpolate(logits, (SIZE, SIZE), mode="bilinear", align_corners=False)
    target, probability = masks.expand_as(logits), logits.sigmoid()
    entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none").mean((2, 3))
    common = (probability * target).sum((2, 3))
    dice = 1 - (2 * common + 1) / (probability.sum((2, 3)) + target.sum((2, 3)) + 1)
    with torch.no_grad():
        shown, drawn = logits > 0, target > 0.5
        iou = (shown & drawn).sum((2, 3)) / (shown | drawn).sum((2, 3)).clamp(min=1)
    error = 4 * entropy + dice
    loss = error[:, 0].mean() + error[:, 1:].amin(1).mean() + 0.3 * (quality - iou).pow(2).mean()
    return {"loss": loss, "iou": iou[:, 0].mean()}


def evaluate(model: Sam, pictures: Labelled) -> dict[str, float]:
    """Mean IoU with jittered boxes through the stage's own code, and the mean IoU of the filled box."""
    rng = np.random.default_rng(9)
    truth = pictures.masks[:, 0] > 127
    boxes = [jittered(box_of(mask), rng)[None] for mask in truth]
    found = PublishedSegmenter(model).segment(list(pictures.images), boxes, BATCH)
    filled = [cv2.boundingRect(mask.astype(np.uint8)) for mask in truth]
    ious = [(m[0] & t).sum() / (m[0] | t).sum() for m, t in zip(found, truth, strict=True)]
    full = [t.sum() / (w * h) for t, (_, _, w, h) in zip(truth, filled, strict=True)]
    return {
        "iou": float(np.mean(ious)),
        "worst tenth": float(np.quantile(ious, 0.1)),
        "box": float(np.mean(full)),
    }


def save(model: Sam, folder: Path) -> None:
    """Write the files that ``load_segmenter`` reads."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(ARCHITECTURE.model_dump_json(indent=2) + "\n")
    save_model(half(model), str(folder / "model.safetensors"))


def main() -> None:
    first = first_step()
    pictures, unseen = training_pictures(), held_out_pictures()
    torch.manual_seed(0)
    model = build(ARCHITECTURE).to(DEVICE)
    if first:
        load_model(model, FOLDER / "model.safetensors")
    training = Training("segmenter", model, SCHEDULE, lambda: evaluate(model, unseen), 150, first)
    training.run(lambda _, rng: loss_of_batch(model, *sample_batch(pictures, rng)))
    with training.averaged_weights():
        save(model, FOLDER)


if __name__ == "__main__":
    main()
