"""Signs in a script's syntax tree, and functions that nothing calls."""

import ast

import pytest

from coltrain.reproduction.targets.python.by_hand import by_hand, passes_of_a_step
from coltrain.reproduction.targets.python.unused import unused_functions


def signs(text):
    return {name: detail for name, _, detail in by_hand(ast.parse(text))}


@pytest.mark.parametrize(
    ("text", "sign", "detail"),
    [
        ('s = (torch.einsum("qnd,csd->qcns", a, b) / 0.1).logsumexp(-1)', "smooth maximum", ""),
        (
            'x = torch.einsum("bnd,csd->bcns", a, b)\ny = torch.logsumexp(x / t, dim=3)',
            "smooth maximum",
            "",
        ),
        ("model.custom_text_proj = nn.Linear(1536, 128)", "projection drawn", ""),
        ("nn.init.xavier_uniform_(m.custom_text_proj.weight)", "projection drawn", ""),
        ("m.custom_text_proj.reset_parameters()", "projection drawn", ""),
        (
            "for n, p in m.named_parameters():\n    if 'lora' in n:\n        p.data = p.data.bfloat16()",
            "adapter cast",
            "bfloat16",
        ),
        (
            "for p in m.parameters():\n    if p.requires_grad:\n        p.data = p.data.to(torch.float32)",
            "adapter cast",
            "float32",
        ),
        (
            "rows = [{'query': q, 'image': r['image']} for r in data for q in r['queries']]",
            "pages repeated",
            "r['queries']",
        ),
        (
            "for r in data:\n    for q in r['questions']:\n        rows.append((q, r['page']))",
            "pages repeated",
            "r['questions']",
        ),
        (
            "for epoch in range(5):\n    set_seed(42)\n    run()",
            "seeded each epoch",
            "set_seed(42)",
        ),
        ("p.process_queries(q, suffix='')", "suffix", "''"),
        ("p = processor(text=['a'], return_tensors='pt')", "bare processor", ""),
        (
            "class Mine(Sampler):\n    def __iter__(self):\n        g = Generator().manual_seed(self.seed)",
            "fixed sampler",
            "Mine.__iter__, Generator().manual_seed(self.seed)",
        ),
        (
            'def s(q, p):\n    return torch.einsum("qnd,psd->qpns", q.half(), p.half()).amax(3).sum(2)',
            "half scores",
            "half",
        ),
    ],
)
def test_what_is_done_by_hand_shows(text, sign, detail):
    assert signs(text) == {sign: detail}


@pytest.mark.parametrize(
    "text",
    [
        "loss = -(scores.diag() - torch.logsumexp(scores, dim=1)).mean()",
        's = torch.einsum("bnd,csd->bcns", a, b).amax(3).sum(2)\nlse = torch.logsumexp(s / 0.02, dim=-1)',
        "head = nn.Linear(1536, 128)",
        "for n, p in m.named_parameters():\n    if 'lora' not in n:\n        p.data = p.data.half()",
        "texts = [q for r in data for q in r['queries']]",
        "for epoch in range(5):\n    set_seed(42 + epoch)",
        "p = processor(text=['a'], images=pages)",
        "class Mine(Sampler):\n    def __iter__(self):\n        g = Generator().manual_seed(self.seed + self.epoch)",
        "set_seed(42)\nfor epoch in range(5):\n    run()",
    ],
)
def test_what_only_looks_like_it_does_not(text):
    assert signs(text) == {}


def test_functions_that_nothing_calls_are_found_and_those_of_a_library_are_not():
    text = """
def old(): return inner()
def inner(): pass
def used(): return helper()
def helper(): pass
@app.command()
def command(): pass
"""
    assert unused_functions(ast.parse(text)) == set()
    start = "if __name__ == '__main__':\n    used()\n"
    assert unused_functions(ast.parse(text + start)) == {"old", "inner"}
    assert unused_functions(ast.parse(text + "import fire\nfire.Fire()\n")) == set()
    assert unused_functions(ast.parse(text + "run(globals()['old'])\n")) == set()


@pytest.mark.parametrize(
    ("text", "passes"),
    [
        ("if (n + 1) % 8 == 0:\n    optimizer.step()", "8"),
        (
            "if (n + 1) % a.accumulate == 0 or n + 1 == len(data):\n    scaler.step(optimizer)",
            "a.accumulate",
        ),
        ("if n % 10 == 0:\n    print(loss)", None),
        ("if n % 10 == 0:\n    schedule.step()", None),
        ("if finite:\n    optimizer.step()", None),
    ],
)
def test_a_step_every_so_many_passes_is_seen(text, passes):
    (node,) = ast.parse(text).body
    found = passes_of_a_step(node)
    assert (None if found is None else ast.unparse(found)) == passes
