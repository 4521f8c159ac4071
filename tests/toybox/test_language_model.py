"""The toybox's tokenizer and its training conversations."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from stages.instruct.answer import parse_answer
from stages.instruct.prompt import NO_EDIT, conversation, draw_prompt, question
from stages.models.chat.sampling import Sampling
from stages.models.chat.transformers_chat import TransformersChat, load
from stages.tasks import load_tasks
from toybox.recipes.language_model import END, build_model, build_tokenizer, fixed_wording
from toybox.recipes.train_language_model import (
    PROMPT_WEIGHT,
    encode,
    evaluate,
    loss_of,
    sample_conversation,
    world_words,
)
from toybox.world import answers

ROOT = Path(__file__).parents[2]
TASKS = load_tasks(ROOT / "prompts", ROOT / "toybox" / "exemplars", answers.TASKS)
FIXED = re.compile(rf"({'|'.join(map(re.escape, fixed_wording(TASKS)))}) +")
WEIGHTS = ROOT / "toybox" / "weights" / "language_model"
TRAINED = pytest.mark.skipif(not WEIGHTS.exists(), reason="trained by `make toybox`")


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer(TASKS, world_words(TASKS))


@pytest.mark.parametrize("name", list(TASKS))
def test_a_prompt_round_trips_in_few_known_tokens(tokenizer, name):
    task = TASKS[name]
    shown = [task.exemplars[index] for index in draw_prompt(task, 1).exemplars]
    messages = conversation(task, shown, "a striped red car next to a blue ball in a meadow", task.verbs[0])
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(ids) == text
    assert tokenizer.unk_token_id not in ids
    assert len(ids) < 170


@TRAINED
@pytest.mark.parametrize("name", list(TASKS))
def test_the_shipped_tokenizer_knows_the_wording_of_the_prompts(name):
    shipped = AutoTokenizer.from_pretrained(WEIGHTS, local_files_only=True)
    task = TASKS[name]
    messages = conversation(task, task.exemplars, "a red car", task.verbs[0])
    for message in messages:
        words = len(message["content"].split())
        tokens = shipped(message["content"], add_special_tokens=False)["input_ids"]
        limit = 2 if message["role"] == "system" else words + 8
        assert len(tokens) <= limit, "the wording of prompts/ changed: train anew with `make toybox`"


@TRAINED
def test_the_shipped_model_answers_captions_it_never_saw():
    model, tokenizer = load(str(WEIGHTS), None, "float32")
    sampling = Sampling(temperature=0.7, top_p=0.95, max_new_tokens=96)
    figures = evaluate(TransformersChat(model, tokenizer, sampling, 12, 16), TASKS, count=36)
    # A floor that broken weights miss, below the .70 and .66 measured over 90 captions after 1500 steps.
    assert figures["valid"] >= 0.6
    assert figures["correct"] >= 0.5


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=40))
def test_any_ascii_caption_round_trips(tokenizer, caption):
    """But for spaces after a piece of fixed wording, such as the JSON of answers: it takes them in."""
    text = question(caption, "paint")
    again = tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"])
    assert FIXED.sub(r"\1", again) == FIXED.sub(r"\1", text)
    if not FIXED.search(text):
        assert again == text


def test_other_scripts_become_unknown_tokens(tokenizer):
    ids = tokenizer(question("日本 a red car " + "x" * 500, "paint"), add_special_tokens=False)["input_ids"]
    assert tokenizer.unk_token_id in ids


@pytest.mark.parametrize("shots", [0, 2])
def test_every_answer_of_a_conversation_is_a_target(tokenizer, shots):
    messages = sample_conversation(TASKS, shots, np.random.default_rng(1))
    ids, weights = encode(tokenizer, [messages])
    spoken = tokenizer.decode(ids[0][weights[0] == 1])
    assert spoken == "".join(m["content"] + END for m in messages if m["role"] == "assistant")
    assert torch.equal(weights.unique(), torch.tensor([PROMPT_WEIGHT, 1.0]))


def test_padding_carries_no_loss(tokenizer):
    rng = np.random.default_rng(2)
    ids, weights = encode(tokenizer, [sample_conversation(TASKS, shots, rng) for shots in (0, 2)])
    assert weights[ids == tokenizer.pad_token_id].sum() == 0


def test_conversations_vary_and_some_captions_offer_nothing_to_edit(tokenizer):
    rng = np.random.default_rng(3)
    answers = [sample_conversation(TASKS, 0, rng)[-1]["content"] for _ in range(200)]
    assert 2 <= answers.count(NO_EDIT) <= 25
    assert len(set(answers)) > 150
    assert all(parse_answer(answer) for answer in answers)


def test_a_few_steps_of_training_lower_the_loss(tokenizer):
    torch.manual_seed(0)
    model = build_model(tokenizer)
    rng = np.random.default_rng(4)
    batch = encode(tokenizer, [sample_conversation(TASKS, 0, rng) for _ in range(8)])
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3)
    losses = []
    for _ in range(6):
        loss = loss_of(model, *batch)["loss"]
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
