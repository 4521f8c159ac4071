"""A tiny T5 and a tiny BERT with a tokenizer of whole words."""

from collections.abc import Iterable
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from tokenizers.processors import TemplateProcessing
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)


def save_tokenizer(folder: Path, words: Iterable[str]) -> PreTrainedTokenizerFast:
    """A tokenizer that ends every text with ``</s>``, as T5's does."""
    vocabulary = {word: k for k, word in enumerate(["<pad>", "</s>", "<unk>", *sorted(set(words))])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )
    fast.save_pretrained(folder)
    return fast


def save_t5(folder: Path, words: Iterable[str]) -> Path:
    """A text-to-text T5 without a classifier, such as flan-t5."""
    tokenizer = save_tokenizer(folder, words)
    torch.manual_seed(0)
    T5ForConditionalGeneration(
        T5Config(
            vocab_size=len(tokenizer),
            d_model=32,
            d_kv=16,
            d_ff=64,
            num_layers=1,
            num_heads=2,
            dropout_rate=0.0,
            feed_forward_proj="gated-gelu",
            decoder_start_token_id=0,
        )
    ).save_pretrained(folder)
    return folder


def save_bert(folder: Path, words: Iterable[str], labels: int = 5) -> Path:
    """An encoder with the head of another classifier."""
    tokenizer = save_tokenizer(folder, words)
    torch.manual_seed(0)
    BertForSequenceClassification(
        BertConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=64,
            hidden_dropout_prob=0.0,
            pad_token_id=0,
            num_labels=labels,
        )
    ).save_pretrained(folder)
    return folder
