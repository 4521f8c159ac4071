import subprocess
import sys

import numpy as np
import pytest
from transformers import CLIPTokenizer

from toybox.recipes.tokenizer import CONTEXT_LENGTH, build_tokenizer
from toybox.world.scene import sample_caption, sample_scene, vocabulary


@pytest.fixture(scope="module")
def tokenizer() -> CLIPTokenizer:
    return build_tokenizer()


def test_every_world_word_is_one_token(tokenizer):
    for word in vocabulary():
        start, token, end = tokenizer(word).input_ids
        assert (start, end) == (tokenizer.bos_token_id, tokenizer.eos_token_id)
        assert tokenizer.convert_ids_to_tokens(token) == f"{word}</w>"


def test_captions_fit_and_have_one_token_a_word(tokenizer):
    rng = np.random.default_rng(0)
    for _ in range(200):
        caption = sample_caption(sample_scene(rng), rng)
        length = len(tokenizer(caption).input_ids)
        assert length == len(caption.split()) + 2 <= CONTEXT_LENGTH


@pytest.mark.parametrize("text", ["a zebra", "Ein Café, 3 Uhr!", "猫の絵", "🙂", "a\x00b"])
def test_other_text_falls_back_to_letters_and_bytes(tokenizer, text):
    inner = tokenizer(text).input_ids[1:-1]
    assert inner
    assert tokenizer.eos_token_id not in inner


def test_the_end_token_has_the_highest_id(tokenizer):
    assert tokenizer.eos_token_id == len(tokenizer) - 1 == tokenizer.pad_token_id


def test_it_survives_saving(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    loaded = CLIPTokenizer.from_pretrained(tmp_path)
    texts = ["a striped red car and a ball at night", "a zebra"]
    assert loaded(texts).input_ids == tokenizer(texts).input_ids
    assert loaded.model_max_length == CONTEXT_LENGTH


def test_another_process_builds_the_same_vocabulary(tokenizer):
    code = "from toybox.recipes.tokenizer import build_tokenizer as b; print(sorted(b().get_vocab().items()))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == str(sorted(tokenizer.get_vocab().items()))
