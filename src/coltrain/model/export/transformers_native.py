"""For transformers: `ColQwen2ForRetrieval` with its own names, configuration and processor.

As it ships (5.23) it drops M-RoPE: pages get plain positions 0, 1, 2, … on all three axes, unless
`position_ids` are passed. Its processor puts a line break behind each query, and cannot leave the
prefix out. How far that moves embeddings is measured on the model that is exported.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers import ColQwen2Config, ColQwen2ForRetrieval, ColQwen2Processor

from coltrain.late_interaction import maxsim
from coltrain.model.audit import PROBE_QUERIES, probe_pages
from coltrain.model.build import BuiltModel
from coltrain.model.export.files import (
    image_processor_with_budget,
    write_card,
    write_network,
    write_processor,
)
from coltrain.model.export.merging import merged_tensors
from coltrain.model.retriever import Retriever
from coltrain.model.weights import PROJECTION

NATIVE_PROJECTION = "embedding_proj_layer"


@dataclass(frozen=True)
class NativeDifference:
    """What transformers makes of the exported model, against ours, on small probes.

    Attributes:
        pages_as_shipped: Largest difference of a page's embedding as transformers computes it.
        pages_with_positions: The same with our `position_ids` passed.
        scores_as_shipped: Largest difference of a score: two queries, two pages, its own template.
        extra_query_tokens: Tokens that its processor gives a query beyond the template's.
    """

    pages_as_shipped: float
    pages_with_positions: float
    scores_as_shipped: float
    extra_query_tokens: int


def write(built: BuiltModel, folder: Path, dtype: torch.dtype) -> list[str]:
    """A folder for `ColQwen2ForRetrieval.from_pretrained`.

    Args:
        built: Kept in float32.
        folder: New or empty.
        dtype: Of the weights.

    Returns:
        What a user should know.

    Source:
        transformers 5.23, models/colqwen2/modeling_colqwen2.py and processing_colqwen2.py.
    """
    tensors = merged_tensors(built.model, dtype)
    named = {_native_name(name): tensor for name, tensor in tensors.items()}
    config = ColQwen2Config(vlm_config=built.model.config.to_dict(), embedding_dim=built.model.dim)
    write_network(built, folder, named, config, "ColQwen2ForRetrieval")
    write_processor(built, folder, "ColQwen2Processor")
    _processor(built).save_pretrained(folder)
    write_card(built, folder, tensors)
    notes = []
    if built.preparer.template.query_prefix == "":
        notes.append(
            "transformers' ColQwen2Processor has no empty query prefix: it puts 'Query: ' there, "
            "which the model was not trained with; tokenize queries yourself"
        )
    return notes


def native_difference(built: BuiltModel, folder: Path) -> NativeDifference:
    """Compare the exported folder, as transformers opens it, with the model that was exported.

    Args:
        built: Kept in float32, on the CPU.
        folder: That `write` wrote.
    """
    native = ColQwen2ForRetrieval.from_pretrained(folder, dtype=torch.float32).eval()
    processor = ColQwen2Processor.from_pretrained(folder, backend="pil")
    retriever = Retriever(built)
    ours = retriever.encode_pages(probe_pages())
    queries = retriever.encode_queries(PROBE_QUERIES)
    shipped, positioned, texts = [], [], []
    with torch.no_grad():
        for page in probe_pages():
            batch = processor(images=[page])
            shipped.append(native(**batch).embeddings[0])
            inputs = built.preparer.collate_pages([built.preparer.prepare_page(page)])
            batch["position_ids"] = inputs.position_ids
            positioned.append(native(**batch).embeddings[0])
        for query in PROBE_QUERIES:
            texts.append(native(**processor(text=[query])).embeddings[0])
    return NativeDifference(
        pages_as_shipped=_largest(shipped, ours),
        pages_with_positions=_largest(positioned, ours),
        scores_as_shipped=_largest([_scores(texts, shipped)], [_scores(queries, ours)]),
        extra_query_tokens=len(texts[0]) - len(queries[0]),
    )


def _native_name(name: str) -> str:
    if name.startswith(PROJECTION):
        return name.replace(PROJECTION, NATIVE_PROJECTION, 1)
    return f"vlm.{name}"


def _processor(built: BuiltModel) -> ColQwen2Processor:
    template = built.preparer.template
    return ColQwen2Processor(
        image_processor_with_budget(built),
        built.preparer.tokenizer,
        visual_prompt_prefix=template.page_prompt,
        query_prefix=template.query_prefix,
    )


def _scores(queries: list[Tensor], pages: list[Tensor]) -> Tensor:
    return torch.stack(
        [maxsim(query[None], page[None])[0, 0] for query in queries for page in pages]
    )


def _largest(found: list[Tensor], expected: list[Tensor]) -> float:
    pairs = zip(found, expected, strict=True)
    return max((one - other).abs().max().item() for one, other in pairs)
