"""How much does maxsim cost beside the matrix products that it cannot avoid?

Alternating runs in one process on one thread; the best processor time of each, and ratios to a
bare loop of the same products (page · queriesᵀ, page by page, into one buffer). "All pairs" is the formula
of colpali-engine 0.3.18, one einsum. Peak memory is the
growth of the process over one call, in a process of its own for each.

    python benchmarks/maxsim_against_gemm.py [queries] [query tokens] [pages] [page tokens]
"""

import re
import subprocess
import sys
import time
from pathlib import Path

import torch

from coltrain.late_interaction import maxsim


def main(num_queries=32, query_tokens=24, num_pages=128, page_tokens=768, runs=5):
    torch.set_num_threads(1)
    calls = make_calls(num_queries, query_tokens, num_pages, page_tokens)
    best = dict.fromkeys(calls, float("inf"))
    for run in range(runs + 1):
        for name, call in calls.items():
            start = time.process_time()
            call()
            if run:  # the first round warms up
                best[name] = min(best[name], time.process_time() - start)
    flops = 2 * num_queries * query_tokens * num_pages * page_tokens * 128
    pairs = num_queries * query_tokens * num_pages * page_tokens * 4 / 2**20
    print(
        f"{num_queries} queries x {query_tokens} tokens, {num_pages} pages x {page_tokens} tokens"
    )
    print(f"all pairs in float32 would be {pairs:.0f} MiB")
    for name, seconds in best.items():
        size = [str(n) for n in (num_queries, query_tokens, num_pages, page_tokens)]
        command = [sys.executable, __file__, *size, name]
        memory = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
        ratio = seconds / best["products only"]
        rate = flops / seconds / 1e9
        print(f"{name:24} {seconds:7.3f} s  {ratio:5.2f} x  {rate:5.0f} GFLOP/s  {memory} MiB")


def make_calls(num_queries, query_tokens, num_pages, page_tokens):
    torch.manual_seed(0)
    queries = torch.nn.functional.normalize(torch.randn(num_queries, query_tokens, 128), dim=-1)
    pages = torch.nn.functional.normalize(torch.randn(num_pages, page_tokens, 128), dim=-1)
    tokens = queries.view(-1, 128).T
    buffer = torch.empty(page_tokens, tokens.shape[1])
    leaves = [x.clone().requires_grad_() for x in (queries, pages)]

    def products_only():
        for page in pages:
            torch.mm(page, tokens, out=buffer)

    def forward_and_backward():
        torch.autograd.grad(maxsim(*leaves).sum(), leaves)

    def all_pairs():
        return torch.einsum("qid,kjd->qkij", *leaves).amax(dim=3).sum(dim=2)

    return {
        "products only": products_only,
        "maxsim": lambda: maxsim(queries, pages),
        "maxsim keeping winners": lambda: maxsim(*leaves),
        "maxsim and backward": forward_and_backward,
        "all pairs and backward": lambda: torch.autograd.grad(all_pairs().sum(), leaves),
    }


def memory(num_queries, query_tokens, num_pages, page_tokens, name):
    torch.set_num_threads(1)
    calls = make_calls(num_queries, query_tokens, num_pages, page_tokens)
    make_calls(2, 3, 2, 256)[name]()  # libraries load what they need
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew (Linux)
    before = peak_mib()
    calls[name]()
    print(f"{peak_mib() - before:6.1f}")


def peak_mib():
    return int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024


if __name__ == "__main__":
    if len(sys.argv) == 6:
        memory(*map(int, sys.argv[1:5]), sys.argv[5])
    else:
        main(*map(int, sys.argv[1:5]))
