"""Train the toybox's GroundingDINO: noun phrases to boxes.

Set prediction as in DETR: queries are matched to boxes. The loss is cross-entropy on the logits of the
phrase's words plus L1 and generalised IoU on the boxes, for the encoder's proposals and every decoder layer.
Half of the phrases are not in the picture (a wrong kind, colour or texture): a detector that always finds
something is useless as a filter.

The detector must reject a wrong colour. With DINO's focal loss and several phrases per picture it rejected
only one in four after 6500 steps. Three changes helped. Most pictures are asked about one phrase, as the
stages ask; beside the true phrase, a wrong one is recognised by comparison. The loss is not focal, because a
focal loss hardly counts a wrong 0.4. The loss on words weighs about as much as the loss on boxes.
"""

from pathlib import Path

import numpy as np
import torch
from groundingdino.util.misc import NestedTensor
from safetensors.torch import load_model, save_model
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import Tensor, nn
from torchvision.ops import box_iou
from transformers import BertConfig, PreTrainedTokenizerFast

from stages.models.grounding import GroundingConfig
from stages.models.grounding.architecture import TEXT_ENCODER, Architecture, Backbone, ImageInput, build
from stages.models.grounding.compat import groundingdino
from stages.models.grounding.published_detector import PublishedDetector, preprocess
from toybox.recipes.labelled import Labelled, degraded, held_out_pictures, training_pictures
from toybox.recipes.set_prediction import Example, set_loss
from toybox.recipes.training import BUILD, DEVICE, WEIGHTS, Schedule, Training, first_step, half
from toybox.world.phrases import absent_phrase, present_phrase, recolored_phrase, retextured_phrase
from toybox.world.scene import SIZE, Scene, box_of, vocabulary

FOLDER = WEIGHTS / "detector"
ARCHITECTURE = Architecture(
    backbone=Backbone(
        pretrain_img_size=SIZE,
        patch_size=4,
        embed_dim=32,
        depths=(2, 2, 2),
        num_heads=(2, 4, 4),
        window_size=8,
        out_indices=(0, 1, 2),
    ),
    image=ImageInput(shortest_side=SIZE, longest_side=SIZE, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
    text_length=24,
    hidden_dim=64,
    enc_layers=2,
    dec_layers=2,
    dim_feedforward=128,
    nheads=4,
    num_queries=10,
    num_feature_levels=3,
)
THRESHOLDS = GroundingConfig(model=str(FOLDER), box_threshold=0.35, text_threshold=0.3)
RECOLORED_SHARE, RETEXTURED_SHARE = 0.45, 0.2
"""Least shares of absent phrases that are an object with a wrong colour or texture: the hardest to reject."""
SINGLE_SHARE = 0.7
"""Share of pictures that are asked about one phrase only."""
BATCH = 16
SCHEDULE = Schedule(
    steps=12_500, learning_rate=7e-4, warmup=50, plateau=0.3, weight_decay=1e-4, clip_norm=0.5, average=0.995
)


def save_text_encoder(folder: Path) -> Path:
    """Write BERT's configuration and a tokenizer with one token per word of the world."""
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", "?", ",", *vocabulary()]
    tokenizer = Tokenizer(models.WordPiece({t: i for i, t in enumerate(tokens)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = [("[CLS]", tokens.index("[CLS]")), ("[SEP]", tokens.index("[SEP]"))]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=special
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="[UNK]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    ).save_pretrained(folder)
    BertConfig(
        vocab_size=len(tokens),
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=128,
        max_position_embeddings=64,
    ).save_pretrained(folder)
    return folder


def build_detector(folder: Path) -> groundingdino.GroundingDINO:
    """An untrained toybox detector; ``folder`` describes its text encoder."""
    model = build(ARCHITECTURE, save_text_encoder(folder / TEXT_ENCODER))
    # Logits are inner products of image and text features. Without this, the first losses are huge.
    nn.init.constant_(model.transformer.encoder.text_layers[-1].norm2.weight, 1 / 8)
    return model


def sample_example(pictures: Labelled, rng: np.random.Generator) -> Example:
    """A picture (every other one mirrored) with one phrase, or up to four, one or two of them absent."""
    index = int(rng.integers(len(pictures.scenes)))
    scene, image, masks = pictures.scenes[index], pictures.images[index], pictures.masks[index]
    if rng.random() < 0.5:
        image, masks = image[:, ::-1], masks[:, :, ::-1]
    asked: list[tuple[str, int | None]] = []
    for thing in rng.permutation(len(scene.things)):
        if rng.random() < 0.6:
            asked.append((present_phrase(scene.things[thing], rng), int(thing)))
    for _ in range(int(rng.integers(1, 3))):
        asked.append((_wrong_phrase(scene, rng), None))
    shown = 1 if rng.random() < SINGLE_SHARE else len(asked)
    asked = [asked[i] for i in rng.permutation(len(asked))[:shown]]
    boxes, words, position = [], [], 1
    for phrase, thing in asked:
        length = len(phrase.split())
        if thing is not None:
            boxes.append(box_of(masks[thing] / 255))
            row = torch.zeros(ARCHITECTURE.text_length, dtype=torch.bool)
            row[position : position + length] = True
            words.append(row)
        position += length + 1
    return Example(
        degraded(image, rng),
        [phrase for phrase, _ in asked],
        torch.tensor(boxes, dtype=torch.float32, device=DEVICE).reshape(-1, 4) / SIZE,
        torch.stack(words).to(DEVICE) if words else torch.zeros(0, ARCHITECTURE.text_length, device=DEVICE),
    )


def _wrong_phrase(scene: Scene, rng: np.random.Generator) -> str:
    drawn = rng.random()
    if not scene.things or drawn > RECOLORED_SHARE + RETEXTURED_SHARE:
        return absent_phrase(scene, rng)
    wrong = recolored_phrase if drawn < RECOLORED_SHARE else retextured_phrase
    return wrong(scene, rng)


class Predictions:
    """Logits and boxes of every layer in one forward pass, caught inside the model, which returns fewer."""

    def __init__(self, model: groundingdino.GroundingDINO) -> None:
        self.model = model
        model.transformer.register_forward_hook(self._catch)

    def _catch(self, _module: nn.Module, args: tuple, output: tuple) -> None:
        self.text, self.layers = args[6], output

    def __call__(self, images: NestedTensor, captions: list[str]) -> list[tuple[Tensor, Tensor]]:
        """Logits [b,q,text_length] and boxes [b,q,4]: the encoder's, then each decoder layer's."""
        model = self.model
        model(images, captions=captions)
        hidden, references, encoded, proposals, _ = self.layers
        outputs = [(model.transformer.enc_out_class_embed(encoded[-1], self.text), proposals[-1])]
        for k, features in enumerate(hidden):
            offset = model.bbox_embed[k](features)
            boxes = (offset + torch.logit(references[k], 1e-3)).sigmoid()
            outputs.append((model.class_embed[k](features, self.text), boxes))
        return [(logits[..., : ARCHITECTURE.text_length], boxes) for logits, boxes in outputs]


def loss_of_batch(predict: Predictions, examples: list[Example]) -> dict[str, Tensor]:
    images = preprocess([example.image for example in examples], ARCHITECTURE.image, DEVICE)
    captions = [" . ".join(example.phrases) + " ." for example in examples]
    layers = [set_loss(logits, boxes, examples) for logits, boxes in predict(images, captions)]
    total = sum((words + boxes for words, boxes in layers), start=torch.zeros((), device=DEVICE))
    return {"loss": total, "words": layers[-1][0], "boxes": layers[-1][1]}


def evaluate(model: groundingdino.GroundingDINO, pictures: Labelled) -> dict[str, float]:
    """Ask for one object that is present and one that is absent, picture by picture, as the stages do."""
    rng = np.random.default_rng(8)
    detector = PublishedDetector(model, ARCHITECTURE.image, THRESHOLDS)
    present = [present_phrase(scene.things[0], rng) for scene in pictures.scenes]
    absent = [absent_phrase(scene, rng) for scene in pictures.scenes]
    images = list(pictures.images)
    there, missing = detector.find(images, present, BATCH), detector.find(images, absent, BATCH)
    truth = torch.tensor([box_of(masks[0] / 255) for masks in pictures.masks], dtype=torch.float32)
    found = torch.from_numpy(np.stack([d.best_box for d in there]))
    overlap = box_iou(found, truth).diag()
    return {
        "iou": overlap.mean().item(),
        "iou>.5": (overlap > 0.5).float().mean().item(),
        "present score": float(np.mean([d.best_score for d in there])),
        "present found": float(np.mean([len(d.boxes) > 0 for d in there])),
        "boxes": float(np.mean([len(d.boxes) for d in there])),
        "absent score": float(np.mean([d.best_score for d in missing])),
        "absent found": float(np.mean([len(d.boxes) > 0 for d in missing])),
    }


def save(model: groundingdino.GroundingDINO, folder: Path) -> None:
    """Write the files that ``Detector.load`` reads."""
    save_text_encoder(folder / TEXT_ENCODER)
    (folder / "config.json").write_text(ARCHITECTURE.model_dump_json(indent=2) + "\n")
    save_model(half(model), str(folder / "model.safetensors"))


def main() -> None:
    first = first_step()
    pictures, unseen = training_pictures(), held_out_pictures()
    torch.manual_seed(0)
    model = build_detector(BUILD / "detector").to(DEVICE)
    if first:
        load_model(model, FOLDER / "model.safetensors")
    predict = Predictions(model)
    training = Training("detector", model, SCHEDULE, lambda: evaluate(model, unseen), 400, first)
    training.run(lambda _, rng: loss_of_batch(predict, [sample_example(pictures, rng) for _ in range(BATCH)]))
    with training.averaged_weights():
        save(model, FOLDER)


if __name__ == "__main__":
    main()
