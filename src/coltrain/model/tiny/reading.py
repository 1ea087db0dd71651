"""Teaching the tiny base to read, and only that.

Qwen2-VL comes to retrieval able to read; a fresh small model does not, and contrastive training
alone collapses it (docs/log.md). So each visual token learns to name the word pieces drawn in its
square, through the embedding matrix, and each query token learns to name itself. Nothing here knows
of queries and their pages: what the base lacks is retrieval.

`make tiny-base` runs this; the same seed and thread count give the same bits on one machine.
"""

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from coltrain.data.drawn.page import CELL, SIDE, PlacedWord, draw, lay_out, text_length
from coltrain.data.drawn.text import documents, normalise
from coltrain.model.colqwen2 import ColQwen2
from coltrain.model.inputs import Preparer

GRID = SIDE // CELL
PIECES_PER_CELL = 4
BLANK_WEIGHT = 0.2  # a blank square names the padding token, at little weight
COPY_WEIGHT = 0.3


@dataclass(frozen=True)
class ReadingSettings:
    """How the base is trained; the values were chosen on the dev split."""

    seed: int = 0
    steps: int = 900
    pages_per_step: int = 8
    learning_rate: float = 3e-3
    warmup_share: float = 0.05
    weight_decay: float = 0.01
    random_page_share: float = 0.5  # pages of words drawn at random, so that text is no help


@dataclass(frozen=True)
class ReadingStep:
    """One step's outcome."""

    step: int
    loss: float
    accuracy: float  # share of written squares whose first guess is one of their pieces


def train_reader(
    model: ColQwen2, preparer: Preparer, settings: ReadingSettings
) -> Iterator[ReadingStep]:
    """Train the model in place, all but its projection; yields each step."""
    draws = random.Random(f"coltrain reading {settings.seed}")
    vocabulary = _vocabulary()
    trained = [
        parameter
        for name, parameter in model.named_parameters()
        if not name.startswith("custom_text_proj")
    ]
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for p in trained if p.ndim >= 2], "weight_decay": settings.weight_decay},
            {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
        ],
        lr=settings.learning_rate,
        betas=(0.9, 0.98),
    )
    for step in range(settings.steps):
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * _schedule(step, settings)
        pages = [_page(draws, vocabulary, settings) for _ in range(settings.pages_per_step)]
        read_loss, accuracy = _read_loss(model, preparer, pages)
        queries = [" ".join(draws.choices(vocabulary, k=4)) for _ in pages]
        loss = read_loss + COPY_WEIGHT * _copy_loss(model, preparer, queries)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        yield ReadingStep(step + 1, loss.item(), accuracy)


def _schedule(step: int, settings: ReadingSettings) -> float:
    """Warm-up, then a cosine to 2 %."""
    share = step / settings.steps
    warmup = min(1.0, share / settings.warmup_share + 0.01)
    return warmup * (0.98 * 0.5 * (1 + math.cos(math.pi * share)) + 0.02)


def _vocabulary() -> list[str]:
    """Every word met at least three times in training text, in a fixed order."""
    counts: dict[str, int] = {}
    for document in documents("train"):
        for word in document:
            counts[normalise(word)] = counts.get(normalise(word), 0) + 1
    return sorted(word for word, count in counts.items() if count >= 3 and word[:1].isalpha())


def _page(
    draws: random.Random, vocabulary: list[str], settings: ReadingSettings
) -> list[PlacedWord]:
    if draws.random() < settings.random_page_share:
        words = [draws.choice(vocabulary) for _ in range(45)]
        words = [word.capitalize() if draws.random() < 0.2 else word for word in words]
    else:
        document = draws.choice(documents("train"))
        start = draws.randrange(max(1, len(document) - 50))
        words = list(document[start : start + 64])
    return lay_out(tuple(words))


def _read_loss(
    model: ColQwen2, preparer: Preparer, pages: list[list[PlacedWord]]
) -> tuple[Tensor, float]:
    inputs = preparer.collate_pages([preparer.prepare_page(draw(page)) for page in pages])
    visual_tokens = model.encode_vision(inputs.pixel_values, inputs.grid_thw)
    packing = model.packing(inputs.mask)
    [hidden] = model.hidden_states(inputs.input_ids, inputs.position_ids, packing, visual_tokens)
    hidden = hidden[inputs.input_ids[inputs.mask] == preparer.image_token_id]
    logits = F.linear(hidden, model.language_model.embed_tokens.weight)
    pieces, weights = _squares(preparer.tokenizer, pages)
    log_probabilities = logits.log_softmax(-1).gather(1, pieces)
    loss = -(log_probabilities * weights).sum() / weights.sum()
    is_written = weights[:, 0] > BLANK_WEIGHT
    is_named = (logits.argmax(-1)[:, None] == pieces) & (weights > BLANK_WEIGHT)
    return loss, is_named.any(-1)[is_written].float().mean().item()


def _copy_loss(model: ColQwen2, preparer: Preparer, queries: list[str]) -> Tensor:
    inputs = preparer.collate_queries(queries)
    packing = model.packing(inputs.mask)
    [hidden] = model.hidden_states(inputs.input_ids, inputs.position_ids, packing)
    logits = F.linear(hidden, model.language_model.embed_tokens.weight)
    return F.cross_entropy(logits, inputs.input_ids[inputs.mask])


def _squares(
    tokenizer: PreTrainedTokenizerFast, pages: list[list[PlacedWord]]
) -> tuple[Tensor, Tensor]:
    """Word pieces in each square of each page, and their weights: squares x pieces."""
    pieces = torch.zeros((len(pages) * GRID * GRID, PIECES_PER_CELL), dtype=torch.int64)
    weights = torch.zeros(pieces.shape)
    for number, page in enumerate(pages):
        found: dict[int, list[tuple[float, int]]] = {}
        for word in page:
            for token, start, end in _pieces(tokenizer, word.text):
                left = word.left + text_length(word.text[:start])
                right = min(SIDE, word.left + text_length(word.text[:end]))
                for column in range(int(left // CELL), min(GRID - 1, int(right // CELL)) + 1):
                    overlap = min(right, (column + 1) * CELL) - max(left, column * CELL)
                    if overlap >= 4 or overlap >= 0.6 * (right - left):
                        found.setdefault(word.line * GRID + column, []).append((overlap, token))
        for square in range(GRID * GRID):
            place = number * GRID * GRID + square
            largest = sorted(found.get(square, []), reverse=True)[:PIECES_PER_CELL]
            weights[place, 0] = BLANK_WEIGHT
            for rank, (_, token) in enumerate(largest):
                pieces[place, rank] = token
                weights[place, rank] = 1 / len(largest)
    return pieces, weights


@lru_cache(200_000)
def _pieces(tokenizer: PreTrainedTokenizerFast, word: str) -> tuple[tuple[int, int, int], ...]:
    """A word's pieces as (token id, first letter, letter after the last)."""
    encoded = tokenizer(" " + word, add_special_tokens=False, return_offsets_mapping=True)
    spans = zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)
    return tuple((token, max(0, s - 1), e - 1) for token, (s, e) in spans if e > 1)
