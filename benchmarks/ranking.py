"""Does ranking cost more than its matrix products, and how does it compare with colpali-engine's?

Synthetic unit vectors; one thread; processor time, the ways in turn in one process, the best of all
rounds. Printed as JSON, beside a bare loop of the same products (page · queriesᵀ, page by page,
torch.mm into one buffer). Memory is the growth of the resident peak over one call beyond the
embeddings, in a process of its own for each way (Linux).

    python benchmarks/ranking.py                    # 5,000 pages of 768, 300 queries of 24
    python benchmarks/ranking.py --pages 200 --rounds 3

At full size embeddings take 2 GB and a round about five minutes, most of it colpali-engine's.
"""

import re
import subprocess
import sys
from pathlib import Path

import torch
from alternating import arguments, finish, measured

from coltrain.evaluation.rank import score_all


def main() -> None:
    parser = arguments(__doc__, rounds=7)
    parser.add_argument("--pages", type=int, default=5000)
    parser.add_argument("--page-tokens", type=int, default=768)
    parser.add_argument("--queries", type=int, default=300)
    parser.add_argument("--query-tokens", type=int, default=24)
    parser.add_argument("--memory-of", help="print the growth in MiB of one way, and leave")
    parser.add_argument("--without-engine", action="store_true")
    given = parser.parse_args()
    sizes = (given.pages, given.page_tokens, given.queries, given.query_tokens)
    if given.memory_of:
        print(memory_growth(sizes, given.memory_of))
    else:
        figures = compare(sizes, given.rounds, given.device, not given.without_engine)
        finish(__doc__.splitlines()[0], figures, given)


def compare(sizes, rounds: int, device: str, with_engine: bool) -> dict:
    """Processor seconds of each way, ratios, and growth of memory."""
    ways = make_ways(sizes, device, with_engine)
    seconds = measured(ways, rounds, device)
    best = {name: found["best_seconds"] for name, found in seconds.items()}
    pages, page_tokens, queries, query_tokens = sizes
    products = 2 * pages * page_tokens * queries * query_tokens * 128
    others = [name for name in ways if name != "coltrain"]
    figures = {
        "pages": pages,
        "page_tokens": page_tokens,
        "queries": queries,
        "query_tokens": query_tokens,
        "seconds": seconds,
        "gflop_per_second": {name: round(products / s / 1e9, 1) for name, s in best.items()},
        "times_as_fast_as": {name: best[name] / best["coltrain"] for name in others},
    }
    if device == "cpu":
        figures["memory_mib"] = {name: child_memory(sizes, name) for name in ways}
    if with_engine:
        difference = (ways["coltrain"]() - ways["colpali-engine"]().cpu()).abs().max()
        figures["largest_difference"] = float(difference)
    return figures


def make_ways(sizes, device: str, with_engine: bool = True) -> dict:
    pages, queries = ([one.to(device) for one in side] for side in embeddings(sizes))
    tokens = torch.cat(queries).T.contiguous()
    buffer = torch.empty(sizes[1], tokens.shape[1], device=device)

    def products_alone():
        for page in pages:
            torch.mm(page, tokens, out=buffer)

    ways = {"products alone": products_alone, "coltrain": lambda: score_all(queries, iter(pages))}
    if with_engine:
        from colpali_engine.utils.processing_utils import BaseVisualRetrieverProcessor

        ways["colpali-engine"] = lambda: BaseVisualRetrieverProcessor.score_multi_vector(
            queries, pages, device=device
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
    make_ways((3, 64, 2, 4), "cpu", name == "colpali-engine")[name]()
    way = make_ways(sizes, "cpu", name == "colpali-engine")[name]
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
