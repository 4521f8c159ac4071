"""Fine-tune a language model into a task predictor, with the Trainer of transformers.

Any model with a sequence classifier in transformers serves: T5 and its kin, as in Emu Edit, or an encoder.
The result is a folder for ``task_check.predictor`` and for ``--predictor``.
"""

import json
import math
import shutil
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)
from transformers.trainer_utils import get_last_checkpoint
from transformers.utils import logging

from editor.predictor.data import Confusion, Labelled
from pipeline.errors import StageError, UserError
from pipeline.shown import Terminal
from stages.base import Weights
from stages.models.classifier import SequenceClassifier, readable
from stages.models.weights import load_model, load_processor

MAX_TOKENS = 64
"""Longest instruction; longer ones are cut. The same as in ``task_check``."""
_ABOUT = "about.json"


@dataclass(frozen=True)
class Settings:
    """How a predictor is trained."""

    base: str
    epochs: float = 3.0
    batch: int = 32
    learning_rate: float = 1e-4
    precision: Literal["float32", "bfloat16"] = "float32"
    seed: int = 0


def train_predictor(work: Path, train: Labelled, settings: Settings, console: Terminal) -> Path:
    """Train in the folder ``work``, or continue there.

    Returns:
        A folder in ``work`` with the model and its tokenizer.

    Raises:
        UserError: the folder holds another training, or the model cannot classify instructions.
        OSError: the model cannot be read.
        StageError: the loss is not finite.
    """
    _check_same(work, {**asdict(settings), "names": list(train.names), "examples": len(train.texts)})
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.manual_seed(settings.seed)
    weights = Weights(model=settings.base)
    tokenizer = load_processor(AutoTokenizer, weights, "--base")
    places = dict(enumerate(train.names))
    model = load_model(
        AutoModelForSequenceClassification,
        weights,
        "--base",
        dtype=torch.float32,
        id2label=places,
        label2id={name: place for place, name in places.items()},
        ignore_mismatched_sizes=True,  # the head of another classifier
    )
    _check_end(model, tokenizer, settings.base)
    examples = _examples(train, tokenizer, console)
    arguments = TrainingArguments(
        str(work / "checkpoints"),
        num_train_epochs=settings.epochs,
        per_device_train_batch_size=settings.batch,
        learning_rate=settings.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=0.05,
        weight_decay=0.01,
        bf16=settings.precision == "bfloat16",
        seed=settings.seed,
        save_strategy="epoch",
        save_total_limit=1,
        logging_strategy="epoch",
        logging_nan_inf_filter=False,
        disable_tqdm=True,
        report_to="none",
    )
    trainer = Trainer(model, arguments, DataCollatorWithPadding(tokenizer), examples)
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(_Told(console))
    checkpoints = work / "checkpoints"
    trainer.train(resume_from_checkpoint=get_last_checkpoint(checkpoints) if checkpoints.exists() else None)
    done = work / "model"
    shutil.rmtree(done, ignore_errors=True)
    model.save_pretrained(done)
    tokenizer.save_pretrained(done)
    return done


def confusion(folder: Path, held_out: Labelled, batch: int = 32) -> Confusion:
    """Predict the tasks of held-out instructions, as ``task_check`` does."""
    predicted = SequenceClassifier(Weights(model=str(folder)), MAX_TOKENS).predict(held_out.texts, batch)
    counts = Counter(
        (held_out.names[label], max(found, key=lambda name: found[name]) if found else "")
        for label, found in zip(held_out.labels, predicted, strict=True)
    )
    return Confusion(held_out.names, counts)


class _Told(TrainerCallback):
    """Prints the loss of every epoch, and stops where it is not finite."""

    def __init__(self, console: Terminal) -> None:
        self._console = console

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        if logs and "loss" in logs:
            loss = float(logs["loss"])
            if not math.isfinite(loss):
                raise StageError("the loss is not finite: lower --learning-rate, or use --precision float32")
            self._console.print(f"epoch {state.epoch:g}  step {state.global_step}  loss {loss:.4f}")


def _examples(train: Labelled, tokenizer: Any, console: Terminal) -> list[dict[str, Any]]:
    kept = [k for k, text in enumerate(train.texts) if readable(tokenizer, text)]
    if not kept:
        raise UserError("--base: its tokenizer can read none of the instructions")
    if lost := len(train.texts) - len(kept):
        console.print(f"  {lost} instructions not used: the tokenizer of --base cannot read them")
    encoded = tokenizer([train.texts[k] for k in kept], truncation=True, max_length=MAX_TOKENS)
    return [
        {"input_ids": ids, "attention_mask": mask, "labels": train.labels[k]}
        for k, ids, mask in zip(kept, encoded.input_ids, encoded.attention_mask, strict=True)
    ]


def _check_same(work: Path, about: Mapping[str, Any]) -> None:
    file = work / _ABOUT
    if file.exists():
        if json.loads(file.read_text(encoding="utf-8")) != about:
            raise UserError(
                f"{work} holds an unfinished training with other settings or pairs: finish it with the same "
                "command, or delete it"
            )
    else:
        file.write_text(json.dumps(about) + "\n", encoding="utf-8")


def _check_end(model: Any, tokenizer: Any, base: str) -> None:
    """A T5 classifies at the end token, so that every text must have one."""
    if model.config.is_encoder_decoder and tokenizer("a").input_ids[-1] != model.config.eos_token_id:
        raise UserError(f"--base {base}: its tokenizer does not end a text with the model's end token")
