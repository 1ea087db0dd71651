"""Does ranking cost more than its matrix products, and how does it compare with colpali-engine's?

Synthetic unit vectors; one thread; processor time, the ways in turn in one process, the best of all
rounds. Printed as JSON, with ratios to a bare loop of the same products (page · queriesᵀ, page by
page, torch.mm into one buffer). Memory is the growth of the resident peak over one call beyond the
embeddings, in a process of its own for each way (Linux).

    python benchmarks/ranking.py                    # 5,000 pages of 768, 300 queries of 24
    python benchmarks/ranking.py --pages 200 --rounds 3

At full size embeddings take 2 GB and a round about five minutes, most of it colpali-engine's.
"""

import argparse
import json
import re
import subprocess
import sys
import time
from pathlib import Path

import torch

from coltrain.evaluation.rank import score_all


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pages", type=int, default=5000)
    parser.add_argument("--page-tokens", type=int, default=768)
    parser.add_argument("--queries", type=int, default=300)
    parser.add_argument("--query-tokens", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--memory-of", help="print the growth in MiB of one way, and leave")
    parser.add_argument("--without-engine", action="store_true")
    given = parser.parse_args()
    sizes = (given.pages, given.page_tokens, given.queries, given.query_tokens)
    if given.memory_of:
        print(memory_growth(sizes, given.memory_of))
    else:
        print(json.dumps(compare(sizes, given.rounds, not given.without_engine), indent=2))


def compare(sizes, rounds: int, with_engine: bool) -> dict:
    """Best processor seconds of each way, ratios, and growth of memory."""
    torch.set_num_threads(1)
    ways = make_ways(sizes, with_engine)
    seconds = {name: [] for name in ways}
    scores = {}
    for _ in range(rounds):
        for name, way in ways.items():
            start = time.process_time()
            scores[name] = way()
            seconds[name].append(time.process_time() - start)
    best = {name: min(times) for name, times in seconds.items()}
    pages, page_tokens, queries, query_tokens = sizes
    products = 2 * pages * page_tokens * queries * query_tokens * 128
    result = {
        "pages": pages,
        "page_tokens": page_tokens,
        "queries": queries,
        "query_tokens": query_tokens,
        "rounds": rounds,
        "torch": torch.__version__,
        "seconds": {name: round(value, 3) for name, value in best.items()},
        "gflop_per_second": {name: round(products / s / 1e9, 1) for name, s in best.items()},
        "coltrain_by_products_alone": round(best["coltrain"] / best["products alone"], 3),
        "memory_mib": {name: child_memory(sizes, name) for name in ways},
    }
    if with_engine:
        result["engine_by_coltrain"] = round(best["colpali-engine"] / best["coltrain"], 3)
        difference = (scores["coltrain"] - scores["colpali-engine"]).abs().max()
        result["largest_difference"] = float(difference)
    return result


def make_ways(sizes, with_engine: bool = True) -> dict:
    pages, queries = embeddings(sizes)
    tokens = torch.cat(queries).T.contiguous()
    buffer = torch.empty(sizes[1], tokens.shape[1])

    def products_alone():
        for page in pages:
            torch.mm(page, tokens, out=buffer)

    ways = {"products alone": products_alone, "coltrain": lambda: score_all(queries, iter(pages))}
    if with_engine:
        from colpali_engine.utils.processing_utils import BaseVisualRetrieverProcessor

        ways["colpali-engine"] = lambda: BaseVisualRetrieverProcessor.score_multi_vector(
            queries, pages, device="cpu"
        )
    return ways


def embeddings(sizes):
    """Unit vectors, made page by page so that the making leaves no peak."""
    pages, page_tokens, queries, query_tokens = sizes
    draw = torch.Generator().manual_seed(0)

    def one(tokens):
        vectors = torch.randn(tokens, 128, generator=draw)
        return vectors.div_(vectors.norm(dim=1, keepdim=True))

    return [one(page_tokens) for _ in range(pages)], [one(query_tokens) for _ in range(queries)]


def memory_growth(sizes, name: str) -> float:
    torch.set_num_threads(1)
    # What libraries load at their first call is not the method's memory.
    make_ways((3, 64, 2, 4), name == "colpali-engine")[name]()
    way = make_ways(sizes, name == "colpali-engine")[name]
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = status("VmRSS")
    way()
    return round((status("VmHWM") - before) / 1024, 1)


def status(key: str) -> int:
    return int(re.search(rf"{key}:\s+(\d+) kB", Path("/proc/self/status").read_text())[1])


def child_memory(sizes, name: str) -> float:
    options = zip(("--pages", "--page-tokens", "--queries", "--query-tokens"), sizes, strict=True)
    words = [str(word) for option in options for word in option]
    command = [sys.executable, __file__, *words, "--memory-of", name]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


if __name__ == "__main__":
    main()
