"""Configuration, tokenizer and image processor of the tiny base: Qwen2-VL's classes, made small."""

import math

import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen2VLConfig, Qwen2VLImageProcessorPil

from coltrain.data.drawn.text import documents
from coltrain.model.colqwen2 import ColQwen2

VOCABULARY_SIZE = 1536
SPECIAL_TOKENS = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
]
_HIDDEN = 128
_VISION = 64
_HEAD = 32


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE over the training text, lower case, digits one by one; deterministic."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    pieces = Regex(r" ?[a-z'\-]+| ?\d| ?[^\sa-z\d]+|\s+")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(pieces, "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(
        (" " + " ".join(document) for document in documents("train")), trainer
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<|endoftext|>",
        eos_token="<|im_end|>",
        additional_special_tokens=SPECIAL_TOKENS[1:],
        model_input_names=["input_ids", "attention_mask"],
    )


def tiny_image_processor() -> Qwen2VLImageProcessorPil:
    """Qwen2-VL's, with a mean and deviation that make white paper nearly zero."""
    return Qwen2VLImageProcessorPil(
        size={"shortest_edge": 4 * 28 * 28, "longest_edge": 1280 * 28 * 28},
        image_mean=[0.95] * 3,
        image_std=[0.3] * 3,
    )


def tiny_config() -> Qwen2VLConfig:
    """Two layers each; real patch size, merge size, frames per patch and M-RoPE sections' shape."""
    ids = {token: number for number, token in enumerate(SPECIAL_TOKENS)}
    return Qwen2VLConfig(
        text_config={
            "vocab_size": VOCABULARY_SIZE,
            "hidden_size": _HIDDEN,
            "intermediate_size": 2 * _HIDDEN,
            "num_hidden_layers": 2,
            "num_attention_heads": _HIDDEN // _HEAD,
            "num_key_value_heads": _HIDDEN // _HEAD // 2,
            "max_position_embeddings": 32768,
            "initializer_range": 0.7 / math.sqrt(_HIDDEN),
            "use_cache": False,
            "bos_token_id": ids["<|endoftext|>"],
            "eos_token_id": ids["<|im_end|>"],
            "pad_token_id": None,
            "tie_word_embeddings": True,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                "mrope_section": [4, 6, 6],
            },
        },
        vision_config={
            "depth": 2,
            "embed_dim": _VISION,
            "hidden_size": _HIDDEN,
            "num_heads": _VISION // _HEAD,
            "mlp_ratio": 4,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "initializer_range": 0.7 / math.sqrt(_VISION),
        },
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=True,
    )


def fresh_tiny_model(seed: int) -> ColQwen2:
    """Random weights; the projection as well, as a base without one would get."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = ColQwen2(tiny_config())
        torch.nn.init.normal_(model.custom_text_proj.weight, std=1 / math.sqrt(_HIDDEN))
        torch.nn.init.zeros_(model.custom_text_proj.bias)
    return model
