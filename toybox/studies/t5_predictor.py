"""Is a small T5 as good a task predictor of the toybox as its small BERT?

    python -m toybox.studies.t5_predictor          # resumable; writes toybox/build/t5_predictor/model

The T5 is trained as the BERT was (:mod:`toybox.recipes.train_task_predictor`): the same instructions, steps
and learning rate. Both are then read by the loader of ``task_check``, on instructions of held-out captions.
"""

import numpy as np
import torch
from rich.console import Console
from tokenizers.processors import TemplateProcessing
from torch.nn.functional import cross_entropy
from transformers import PreTrainedTokenizerFast, T5Config, T5ForSequenceClassification

from stages.base import Weights
from stages.models.classifier import SequenceClassifier
from stages.tasks import Tasks, load_tasks
from toybox.recipes.language_model import build_tokenizer
from toybox.recipes.train_language_model import PROMPTS, world_words
from toybox.recipes.train_task_predictor import BATCH, FOLDER, LENGTH, SCHEDULE, encode, sample_instruction
from toybox.recipes.training import BUILD, DEVICE, Training, half
from toybox.world.answers import TASKS

MADE = BUILD / "t5_predictor" / "model"
EACH = 100
"""Held-out instructions of each task."""


def t5_tokenizer(tasks: Tasks) -> PreTrainedTokenizerFast:
    """The toybox's words, with the end token at which a T5 classifies."""
    tokenizer = build_tokenizer(tasks, world_words(tasks))
    tokenizer.padding_side, tokenizer.chat_template = "right", None
    end, number = tokenizer.eos_token, tokenizer.eos_token_id
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"$A {end}", special_tokens=[(end, number)]
    )
    return tokenizer


def build(tokenizer: PreTrainedTokenizerFast) -> T5ForSequenceClassification:
    """Two layers of width 64 in encoder and decoder."""
    return T5ForSequenceClassification(
        T5Config(
            vocab_size=len(tokenizer),
            d_model=64,
            d_kv=32,
            d_ff=128,
            num_layers=2,
            num_heads=2,
            feed_forward_proj="gated-gelu",
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            decoder_start_token_id=tokenizer.pad_token_id,
            num_labels=len(TASKS),
            id2label=dict(enumerate(TASKS)),
            label2id={name: index for index, name in enumerate(TASKS)},
        )
    )


def held_out(tasks: Tasks) -> tuple[list[str], list[str]]:
    """Instructions of held-out captions, and their tasks."""
    rng = np.random.default_rng(8)
    names = [name for name in TASKS for _ in range(EACH)]
    return [sample_instruction(tasks, name, True, rng) for name in names], names


def right(predictor: SequenceClassifier, texts: list[str], names: list[str]) -> tuple[float, float]:
    """The share of right tasks, and the share of sure predictions (0.9) that are wrong."""
    found = predictor.predict(texts, 64)
    best = [max(each, key=lambda name: each[name]) if each else "" for each in found]
    wrong = [b != n and each.get(b, 0) >= 0.9 for b, n, each in zip(best, names, found, strict=True)]
    return float(np.mean([b == n for b, n in zip(best, names, strict=True)])), float(np.mean(wrong))


def main() -> None:
    tasks = load_tasks(PROMPTS, names=TASKS)
    tokenizer = t5_tokenizer(tasks)
    torch.manual_seed(0)
    model = build(tokenizer).to(DEVICE)

    def loss_of_step(step: int, rng: np.random.Generator) -> dict[str, torch.Tensor]:
        labels = rng.integers(len(TASKS), size=BATCH)
        texts = [sample_instruction(tasks, TASKS[label], False, rng) for label in labels]
        logits = model(**encode(tokenizer, texts)).logits
        return {"loss": cross_entropy(logits, torch.from_numpy(labels).to(DEVICE))}

    training = Training("t5_predictor", model, SCHEDULE, dict, SCHEDULE.steps)
    training.run(loss_of_step)
    with training.averaged_weights():
        half(model).save_pretrained(MADE)
        tokenizer.save_pretrained(MADE)
    texts, names = held_out(tasks)
    for label, folder in (("BERT", FOLDER), ("T5", MADE)):
        share, sure = right(SequenceClassifier(Weights(model=str(folder)), LENGTH), texts, names)
        size = sum(file.stat().st_size for file in folder.iterdir()) / 1e6
        told = f"right {share:.4f}, sure and wrong {sure:.4f}"
        Console().print(f"{label}: {told}, of {len(texts)} held-out instructions; {size:.2f} MB")


if __name__ == "__main__":
    main()
