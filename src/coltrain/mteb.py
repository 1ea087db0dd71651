"""A model in mteb, as its leaderboard takes it.

    from coltrain.mteb import SearchModel, model_meta

    meta = model_meta(retriever, "organisation/model", revision)
    mteb.evaluate(SearchModel(retriever, meta), tasks, cache=mteb.ResultCache("results"))

mteb itself is optional (`pip install 'coltrain[mteb]'`) and is imported when it is needed.
"""

from coltrain.evaluation.mteb_model import SearchModel, load, model_meta

__all__ = ["SearchModel", "load", "model_meta"]
