"""Write src/coltrain/evaluation/published/scores.json from a collection of mteb's result files.

The collection has one entry for each model, revision, task and language as the results repository
of mteb (CC0) has them, the scores of README tables, and the same checkpoints at an earlier commit.

    python scripts/make_published_scores.py reference_scores.json
"""

import json
import sys
from collections import defaultdict
from pathlib import Path

TARGET = Path(__file__).parents[1] / "src/coltrain/evaluation/published/scores.json"
MEASURES = {
    "nDCG@1": "ndcg_at_1",
    "nDCG@5": "ndcg_at_5",
    "nDCG@10": "ndcg_at_10",
    "Recall@1": "recall_at_1",
    "Recall@5": "recall_at_5",
    "Recall@10": "recall_at_10",
    "MRR@10": "mrr_at_10",
}
BENCHMARKS = {
    "ViDoRe(v1)": "vidore-v1",
    "ViDoRe(v2)": "vidore-v2",
    "ViDoRe(v3)": "vidore-v3",
    "ViDoRe(v3.1)": "vidore-v3.1",
}
# Models that mteb runs through colpali-engine, which decides the text of a query with it.
ENGINE_LOADERS = {"ColPaliWrapper", "ColQwen2Wrapper", "ColQwen2_5Wrapper", "ColSmolWrapper"}
ENGINE_WITHOUT_PREFIX = "2025-10-27"  # colpali-engine 0.3.13


def query_text(loader: str | None, mteb: str, date: str) -> str | None:
    """What was sent as a query, as far as the versions tell; None where nothing is known."""
    if loader not in ENGINE_LOADERS:
        return None
    version = tuple(map(int, mteb.split(".")))
    suffix = "10 augmentation tokens"
    if (2, 0, 1) <= version <= (2, 12, 15):
        return f'prefix ("Query: " up to colpali-engine 0.3.12, none from 0.3.13) and {suffix}, both twice'
    if version >= (2, 12, 16):
        return f'"Query: ", query, {suffix}'
    if date < ENGINE_WITHOUT_PREFIX:
        return f'"Query: ", query, {suffix} (most likely: before colpali-engine 0.3.13)'
    return f'query, {suffix}; "Query: " before it up to colpali-engine 0.3.12'


def source_path(model: str, revision: str, task: str) -> str:
    return f"results/{model.replace('/', '__')}/{revision}/{task}.json"


def runs_of(collected: dict) -> list[dict]:
    """Tables of scores: one for each model, revision, benchmark, evaluator, date and commit."""
    loaders = {(m["model"], m["model_revision"]): m["loader"] for m in collected["model_meta"]}
    tables: dict[tuple, dict] = defaultdict(lambda: defaultdict(dict))
    for entry in collected["entries"]:
        assert entry["split"] == "test"
        assert entry["source_path"] == source_path(
            entry["model"], entry["model_revision"], entry["task"]
        )
        key = (
            entry["model"],
            entry["model_revision"],
            BENCHMARKS[entry["benchmark"]],
            entry["mteb_version"],
            entry["source_last_commit_date"],
            entry["source_last_commit"],
        )
        values = [entry[name] for name in MEASURES.values()]
        tables[key][entry["task"]][entry["hf_subset"]] = values
    return [
        {
            "model": model,
            "revision": revision,
            "benchmark": benchmark,
            "evaluator": f"mteb {mteb}",
            "date": date,
            "commit": commit,
            "query_text": query_text(loaders.get((model, revision)), mteb, date),
            "tasks": tasks,
        }
        for (model, revision, benchmark, mteb, date, commit), tasks in sorted(tables.items())
    ]


def reruns_of(collected: dict) -> list[dict]:
    """nDCG@5 of the same checkpoint at two times, for each task: means over its languages."""
    found: dict[tuple, list] = defaultdict(list)
    for run in collected["rerun_history"]["runs"]:
        values = [scores["ndcg_at_5"] for scores in run["scores"].values()]
        mean = round(sum(values) / len(values), 6)
        found[run["model"], run["task"]].append((run["date"], run["mteb_version"], mean))
    reruns = []
    for (model, task), times in sorted(found.items()):
        times.sort()
        if len(times) == 2:
            reruns.append({"model": model, "task": task, "nDCG@5": [mean for *_, mean in times]})
    return reruns


def main() -> None:
    """Write the file; equal input gives equal bytes."""
    collected = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    commit = collected["source_head_commit"]
    document = {
        "about": {
            "source": f"https://github.com/{collected['source_repo']} at {commit}",
            "licence": "CC0 (README of that repository); scores are fractions as filed there",
            "source_of_a_score": f"{collected['source_repo']}@COMMIT: "
            + source_path("OWNER/NAME", "REVISION", "TASK"),
            "reruns": "the same checkpoints on 2025-05-28 (mteb 1.38.16) and 2025-07-16 (1.38.34)",
        },
        "measures": list(MEASURES),
        "runs": runs_of(collected),
        "averages": [
            {
                "model": average["model"],
                "benchmark": "vidore-v1",
                "measure": "nDCG@5",
                "value": round(average["value"] / 100, 4),
                "source": average["source"],
                "evaluator": average["evaluator"],
            }
            for average in collected["published_averages"]
            if average["kind"] == "published_average"
        ],
        "reruns": reruns_of(collected),
    }
    text = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
    # One line for each run, so that a later version is a readable difference.
    text = text.replace('{"model"', '\n{"model"').replace(',"reruns":[', ',\n"reruns":[') + "\n"
    TARGET.write_text(text, encoding="utf-8")
    print(f"{len(document['runs'])} runs, {len(document['reruns'])} reruns, {len(text)} bytes")


if __name__ == "__main__":
    main()
