"""What a trained run reaches: all cells are measured alike, once, by the model that is on disk.

A run of a study evaluates nothing while it trains. What lies between is not compared, the start is the
same for all, and data for evaluation may change without training anything again.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from coltrain.data.check import check_collection
from coltrain.data.collection import Collection
from coltrain.data.sources import load_collection
from coltrain.evaluation.evaluate import (
    evaluate,
    refuse_clashing_ids,
    refuse_without_judgements,
)
from coltrain.evaluation.results import write_results
from coltrain.model.retriever import load
from coltrain.recipe import Source
from coltrain.reproduction.study.features import measuring_features

_MOST_GIB = 32.0  # as a recipe's data.vision_cache.max_gib


class Measurer:
    """Loads and checks the evaluation data once, for all runs of a worker.

    Args:
        sources: The data sets.
        device: What computes.
        features: The study's folder, where its runs share visual tokens.
    """

    def __init__(
        self, sources: Sequence[Source], device: torch.device, features: Path | None = None
    ) -> None:
        self.features = features
        self._sources = sources
        self._device = device
        self._data: list[Collection] = []

    def measure(self, model: Path, file: Path) -> None:
        """Evaluate a model as `coltrain eval` does: in the type that its weights are stored in.

        Args:
            model: A run's model folder.
            file: Where the results go; written whole or not at all.

        Raises:
            ColtrainError: The data or the model cannot be used.
        """
        retriever = load(model, device=self._device)
        vision = None
        if self.features is not None:
            vision = measuring_features(retriever, self.features, _MOST_GIB)
        results = [evaluate(retriever, data, vision=vision).result for data in self._collections()]
        write_results(file, results)

    def _collections(self) -> list[Collection]:
        if not self._data:
            for source in self._sources:
                collection = load_collection(source, "test")
                refuse_without_judgements(collection)
                refuse_clashing_ids(collection)
                usable = check_collection(collection, max_broken_share=None).collection
                refuse_without_judgements(usable)  # all of its pages may be broken
                self._data.append(usable)
        return self._data
