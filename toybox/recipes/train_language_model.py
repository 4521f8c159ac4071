"""Train the toybox's language model to answer the prompts of the instruct stage.

Conversations are rendered on the fly from random scenes by ``stages.instruct.prompt`` itself, so nothing can
be memorised and the model has to learn copying. Short conversations without exemplars come first, in larger
batches, to teach copying; later ones have up to two exemplars. Every answer in a conversation is a training
target, including the exemplars' answers.

One token in thirty of an answer says which of two objects has which colour. 3400 steps of conversations alone
left it at chance. Drills (:func:`sample_drill`) make every token of the answer such a look-up; they left one
wrong in four while answers began with the instruction. Now an answer begins with the original object, so the
object's words are copied from the caption before anything is said about it.
"""

import hashlib
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_model
from torch.nn.functional import cross_entropy
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from stages.instruct.answer import AnswerError, check_answer, parse_answer
from stages.instruct.prompt import NO_EDIT, Message, answer_text, conversation
from stages.models.chat.sampling import Sampling
from stages.models.chat.transformers_chat import TransformersChat
from stages.tasks import Exemplar, Task, Tasks, load_tasks
from toybox.recipes.language_model import ASSISTANT, END, build_model, build_tokenizer
from toybox.recipes.training import DEVICE, WEIGHTS, Schedule, Training, autocast, first_step, half
from toybox.world.answers import TASKS, Description, answers, changes, sample_answer, sample_description
from toybox.world.scene import (
    COLORS,
    JOINERS,
    KINDS,
    TEXTURE_NAMES,
    Scene,
    Thing,
    sample_held_out_scene,
    sample_scene,
    vocabulary,
)

BATCHES = (64, 44, 32)
"""Conversations per step with 0, 1 and 2 exemplars: about equal numbers of tokens."""
PROMPT_WEIGHT = 0.1
IMPOSSIBLE_SHARE = 0.05
"""Share of conversations with a caption that the task cannot edit."""
DRILLS = 48
"""Drills in a step of drills."""
DRILL_SHARE = 0.5
"""Share of steps that are drills."""
SHORT_SHARE = 0.7
"""Share of the schedule without exemplars."""
SHOT_SHARES = (0.35, 0.25, 0.4)
"""Shares of conversations with 0, 1 and 2 exemplars in the rest of the schedule."""
PAIR_SHARE = 0.85
"""Share of scenes that are forced to have two objects: telling two objects apart is hardest."""
SCHEDULE = Schedule(
    steps=10_600, learning_rate=2e-3, warmup=100, plateau=0.2, floor=0.02, betas=(0.9, 0.98), average=0.995
)
PROMPTS = Path(__file__).parents[2] / "prompts"


def is_held_out_caption(text: str) -> bool:
    """Whether a caption is held out: one in eight, by its hash. No training conversation contains one.

    The combinations held out from pictures are not held out here. A language model would learn that "a blue
    tree in a desert" never occurs, and would not copy it. A hash cannot be learned.
    """
    return hashlib.blake2b(text.encode(), digest_size=1).digest()[0] < 32


def world_words(tasks: Tasks) -> set[str]:
    """Every word in the world's captions, the tasks' verbs and the answers' wordings."""
    words = set(vocabulary())
    rng = np.random.default_rng(5)
    for task in tasks.values():
        for verb in task.verbs:
            words.update(verb.split())
            for _ in range(40):
                exemplar = _sample_possible(task, verb, rng)
                words.update(f"{exemplar.edit} {exemplar.edited_object} {exemplar.output_caption}".split())
    return words


def _draw_verb(task: Task, rng: np.random.Generator) -> str:
    return task.verbs[rng.integers(len(task.verbs))]


def _sample_possible(task: Task, verb: str, rng: np.random.Generator) -> Exemplar:
    while True:
        scene = sample_scene(rng, things=2 if rng.random() < PAIR_SHARE else None)
        exemplar = sample_answer(scene, sample_description(rng), task.name, verb, rng)
        if exemplar is not None and not is_held_out_caption(exemplar.caption):
            return exemplar


def sample_conversation(tasks: Tasks, shots: int, rng: np.random.Generator) -> list[Message]:
    """A conversation with its answer: system, exemplars, question, answer."""
    task = tasks[list(tasks)[rng.integers(len(tasks))]]
    exemplars = [_sample_possible(task, _draw_verb(task, rng), rng) for _ in range(shots)]
    verb = _draw_verb(task, rng)
    if rng.random() < IMPOSSIBLE_SHARE and task.name not in ("adjust", "global", "sketch"):
        caption, answer = _impossible_caption(task, rng), NO_EDIT
    else:
        last = _sample_possible(task, verb, rng)
        caption, answer = last.caption, answer_text(last)
    messages = conversation(task, exemplars, caption, verb)
    return [*messages, Message(role="assistant", content=answer)]


def _impossible_caption(task: Task, rng: np.random.Generator) -> str:
    scene = sample_scene(rng, things=2 if task.name == "add" else 0)
    return sample_description(rng).of(scene)


def sample_drill(rng: np.random.Generator) -> list[Message]:
    """A list of objects, and questions for each by kind or colour in another order; answers name it in full.

    No two objects share a kind or a colour, so every answer is determined.
    """
    count = int(rng.integers(2, 7))
    kinds, colors = (rng.permutation(list(names))[:count] for names in (KINDS, COLORS))
    things = [
        Thing(str(kind), str(color), str(rng.choice(TEXTURE_NAMES)), 0.5, 0.5, 0.2)
        for kind, color in zip(kinds, colors, strict=True)
    ]
    listed = f" {rng.choice(JOINERS)} ".join(thing.phrase for thing in things)
    asked = [things[i] for i in rng.permutation(len(things))]
    by_kind = rng.random() < 0.25
    names = " ".join(f"the {thing.kind if by_kind else thing.color}" for thing in asked)
    return [
        Message(role="user", content=f"{listed} {names}"),
        Message(role="assistant", content=" ".join(thing.phrase for thing in asked)),
    ]


def encode(
    tokenizer: PreTrainedTokenizerFast, conversations: list[list[Message]]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids [n,l], padded on the right, and each token's weight in the loss [n,l]."""
    texts = [tokenizer.apply_chat_template(messages, tokenize=False) for messages in conversations]
    encoded = tokenizer(texts, padding=True, padding_side="right", return_tensors="pt")
    ids = encoded["input_ids"]
    assistant, end = (tokenizer.convert_tokens_to_ids(token) for token in (ASSISTANT, END))
    ends_before = (ids == end).cumsum(1) - (ids == end).long()
    opened = torch.where(ids == assistant, ends_before, -1).cummax(1).values
    answered = (opened == ends_before) & (ids != assistant)
    weights = torch.where(answered, 1.0, PROMPT_WEIGHT) * encoded["attention_mask"]
    return ids.to(DEVICE), weights.to(DEVICE)


def loss_of(model: LlamaForCausalLM, ids: torch.Tensor, weights: torch.Tensor) -> dict[str, torch.Tensor]:
    """Mean negative log-likelihood of the answers, and the weighted mean over all tokens for training."""
    with autocast():
        logits = model(input_ids=ids[:, :-1]).logits
    nll = cross_entropy(logits.float().transpose(1, 2), ids[:, 1:], reduction="none")
    weights = weights[:, 1:]
    is_answer = (weights == 1).float()
    answer = (nll * is_answer).sum() / is_answer.sum()
    prompt = (nll * (weights - is_answer)).sum() / is_answer.sum()
    return {"loss": answer + prompt, "answer": answer}


def evaluate(chat: TransformersChat, tasks: Tasks, count: int) -> dict[str, float]:
    """Shares of valid and of correct answers for held-out captions of held-out scenes, with two exemplars."""
    rng = np.random.default_rng(7)
    rows: list[tuple[Task, str, Scene, Description]] = []
    conversations = []
    while len(rows) < count:
        task = tasks[list(tasks)[len(rows) % len(tasks)]]
        scene, description, verb = sample_held_out_scene(rng), sample_description(rng), _draw_verb(task, rng)
        held_out = is_held_out_caption(description.of(scene))
        if not held_out or not changes(scene, description, task.name):
            continue
        shown = [_sample_possible(task, _draw_verb(task, rng), rng) for _ in range(2)]
        rows.append((task, verb, scene, description))
        conversations.append(conversation(task, shown, description.of(scene), verb))
    texts: list[str] = []
    for first in range(0, count, chat.batch):
        part = conversations[first : first + chat.batch]
        for reply in chat.complete(part, list(range(first, first + len(part)))):
            if isinstance(reply, Exception):
                raise reply
            texts.append(reply.text)
    valid = correct = 0
    for (task, verb, scene, description), text in zip(rows, texts, strict=True):
        try:
            check_answer(parse_answer(text), description.of(scene), task.fields)
        except AnswerError:
            continue
        valid += 1
        correct += text in {answer_text(legal) for legal in answers(scene, description, task.name, verb)}
    return {"valid": valid / count, "correct": correct / count}


def main() -> None:
    first = first_step()
    tasks = load_tasks(PROMPTS, names=TASKS)
    tokenizer = build_tokenizer(tasks, world_words(tasks))
    torch.manual_seed(0)
    model = build_model(tokenizer)
    if first:
        load_model(model, WEIGHTS / "language_model" / "model.safetensors")
    torch.nn.Module.to(model, DEVICE)

    def loss_of_step(step: int, rng: np.random.Generator) -> dict[str, torch.Tensor]:
        if rng.random() < DRILL_SHARE:
            loss = loss_of(model, *encode(tokenizer, [sample_drill(rng) for _ in range(DRILLS)]))
            return {"loss": loss["answer"], "drill": loss["answer"]}
        shots = 0 if step < SHORT_SHARE * SCHEDULE.steps else int(rng.choice(3, p=SHOT_SHARES))
        conversations = [sample_conversation(tasks, shots, rng) for _ in range(BATCHES[shots])]
        return loss_of(model, *encode(tokenizer, conversations))

    def figures() -> dict[str, float]:
        result: dict[str, float] = {}
        for name, temperature in (("greedy", 0.0), ("sampled", 0.7)):
            sampling = Sampling(temperature=temperature, top_p=0.95, max_new_tokens=96)
            chat = TransformersChat(model, tokenizer, sampling, batch=32, prompt_multiple=16)
            result |= {f"{name} {key}": value for key, value in evaluate(chat, tasks, 90).items()}
        return result

    training = Training("language_model", model, SCHEDULE, figures, 500, first)
    training.run(loss_of_step)
    with training.averaged_weights():
        half(model).save_pretrained(WEIGHTS / "language_model")
        tokenizer.save_pretrained(WEIGHTS / "language_model")


if __name__ == "__main__":
    main()
