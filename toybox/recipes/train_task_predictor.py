"""Train the toybox's task predictor: it finds the task of an instruction in the drawn world.

A small BERT reads the instruction alone, like Emu Edit's predictor. Some wordings of two tasks differ only in
their objects ("turn the ball into a red ball", "turn the ball into a house"), so the model has to read the
objects.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch.nn.functional import cross_entropy
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

from stages.tasks import Tasks, load_tasks
from toybox.recipes.language_model import build_tokenizer
from toybox.recipes.train_language_model import PROMPTS, is_held_out_caption, world_words
from toybox.recipes.training import DEVICE, WEIGHTS, Schedule, Training, half
from toybox.world.answers import TASKS, sample_answer, sample_description
from toybox.world.scene import sample_scene

FOLDER = WEIGHTS / "task_predictor"
LENGTH = 32
"""Most tokens in an instruction."""
BATCH = 128
SCHEDULE = Schedule(steps=1_500, learning_rate=2e-3, warmup=50, plateau=0.3, average=0.99)


def build(tokenizer: PreTrainedTokenizerFast) -> BertForSequenceClassification:
    return BertForSequenceClassification(
        BertConfig(
            vocab_size=len(tokenizer),
            hidden_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=128,
            max_position_embeddings=64,
            pad_token_id=tokenizer.pad_token_id,
            num_labels=len(TASKS),
            id2label=dict(enumerate(TASKS)),
            label2id={name: index for index, name in enumerate(TASKS)},
        )
    )


def sample_instruction(tasks: Tasks, name: str, held_out: bool, rng: np.random.Generator) -> str:
    """An instruction of a task for a random caption, held out by its hash or not."""
    verbs = tasks[name].verbs
    while True:
        scene, verb = sample_scene(rng), verbs[rng.integers(len(verbs))]
        answer = sample_answer(scene, sample_description(rng), name, verb, rng)
        if answer is not None and is_held_out_caption(answer.caption) == held_out:
            return answer.edit


def encode(tokenizer: PreTrainedTokenizerFast, texts: Sequence[str]) -> dict[str, torch.Tensor]:
    encoded = tokenizer(list(texts), padding=True, truncation=True, max_length=LENGTH, return_tensors="pt")
    return {name: encoded[name].to(DEVICE) for name in ("input_ids", "attention_mask")}


def main() -> None:
    tasks = load_tasks(PROMPTS, names=TASKS)
    tokenizer = build_tokenizer(tasks, world_words(tasks))
    tokenizer.padding_side, tokenizer.chat_template = "right", None
    torch.manual_seed(0)
    model = build(tokenizer)
    torch.nn.Module.to(model, DEVICE)

    def loss_of_step(step: int, rng: np.random.Generator) -> dict[str, torch.Tensor]:
        labels = rng.integers(len(TASKS), size=BATCH)
        texts = [sample_instruction(tasks, TASKS[label], False, rng) for label in labels]
        logits = model(**encode(tokenizer, texts)).logits
        return {"loss": cross_entropy(logits, torch.from_numpy(labels).to(DEVICE))}

    def figures() -> dict[str, float]:
        rng = np.random.default_rng(8)
        labels = np.arange(40 * len(TASKS)) % len(TASKS)
        texts = [sample_instruction(tasks, TASKS[label], True, rng) for label in labels]
        guesses = model(**encode(tokenizer, texts)).logits.argmax(-1).cpu().numpy()
        return {"right": float((guesses == labels).mean())}

    training = Training("task_predictor", model, SCHEDULE, figures, 250)
    training.run(loss_of_step)
    with training.averaged_weights():
        half(model).save_pretrained(FOLDER)
        tokenizer.save_pretrained(FOLDER)


if __name__ == "__main__":
    main()
