"""What a script does by hand, seen in its syntax tree where following its values shows nothing."""

import ast
import re
from collections.abc import Iterator

_PROJECTIONS = ("custom_text_proj", "embedding_proj_layer")
_DRAWS = re.compile(r"^(reset_parameters|\w*(normal|uniform|xavier|kaiming|orthogonal)\w*_)$")
_CASTS = {"half": "float16", "bfloat16": "bfloat16", "float": "float32"}
_SEEDS = ("manual_seed", "set_seed", "seed_everything", "seed", "manual_seed_all")
_PAGE = re.compile(r"image|page|doc|pixel", re.IGNORECASE)


def by_hand(tree: ast.AST) -> Iterator[tuple[str, int, str]]:
    """Name, line and detail of each sign.

    - "smooth maximum": a logsumexp over the page tokens of an all-pairs product;
    - "projection drawn": a fresh Linear, or fresh values, for the retriever's projection;
    - "adapter cast": trainable or LoRA parameters cast in a loop, the detail says to what;
    - "pages repeated": one row for each query of a page, the page in each;
    - "seeded each epoch": the same seed before each epoch;
    - "fixed sampler": a sampler whose order depends on no epoch;
    - "half scores": an all-pairs product of embeddings that the same function casts to half precision;
    - "bare processor": texts alone handed to a processor itself;
    - "suffix": what `process_queries` is told to append.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Module):
            yield from _smooth(node)
            yield from _half(node)
        if isinstance(node, ast.For | ast.AsyncFor):
            yield from _cast(node)
            yield from _seeded(node)
            yield from _repeated_by_loop(node)
        if isinstance(node, ast.ListComp | ast.GeneratorExp):
            yield from _repeated(node)
        if isinstance(node, ast.ClassDef):
            yield from _fixed(node)
        yield from _drawn(node)
        if isinstance(node, ast.Call) and _last(node.func).lower().endswith("processor"):
            given = {keyword.arg for keyword in node.keywords}
            if "text" in given and not given & {"images", "image"}:
                yield "bare processor", node.lineno, ""
        if isinstance(node, ast.Call) and _last(node.func) == "process_queries":
            for keyword in node.keywords:
                if keyword.arg == "suffix":
                    yield "suffix", node.lineno, ast.unparse(keyword.value)


def _last(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def _smooth(scope: ast.AST) -> Iterator[tuple[str, int, str]]:
    """`logsumexp(sims / tau, dim=3)`, or over the last axis of an einsum of four."""
    own = list(_own(scope))
    whole = {
        target.id
        for node in own
        if isinstance(node, ast.Assign) and _is_all_pairs(node.value)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    for node in own:
        if not isinstance(node, ast.Call) or _last(node.func) != "logsumexp":
            continue
        on = node.func.value if isinstance(node.func, ast.Attribute) else node.func
        parts = [on, *node.args, *(one.value for one in node.keywords)]
        axes = [part for part in parts[1:] if isinstance(part, ast.Constant)]
        of_all = any(_is_all_pairs(part) for part in parts) or any(
            isinstance(one, ast.Name) and one.id in whole
            for part in parts
            for one in ast.walk(part)
        )
        if of_all or any(axis.value == 3 for axis in axes):
            yield "smooth maximum", node.lineno, ""


def _half(scope: ast.AST) -> Iterator[tuple[str, int, str]]:
    own = list(_own(scope))
    called = {_last(one.func): one for one in own if isinstance(one, ast.Call)}
    casts = [one for name, one in called.items() if name in ("half", "bfloat16")]
    scores = any(isinstance(one, ast.Call) and _is_all_pairs(one) for one in own)
    if casts and scores and not {"float", "backward"} & set(called):
        yield "half scores", casts[0].lineno, _last(casts[0].func)


def _own(scope: ast.AST) -> Iterator[ast.AST]:
    """Nodes of a scope, those of functions within it left out."""
    waiting = list(ast.iter_child_nodes(scope))
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        yield node
        waiting += ast.iter_child_nodes(node)


def _is_all_pairs(value: ast.AST) -> bool:
    """Whether an expression is a product of four axes that is not reduced yet."""
    if isinstance(value, ast.Call) and _last(value.func) in ("amax", "max", "sum", "mean"):
        return False
    return any(
        isinstance(one, ast.Constant)
        and isinstance(one.value, str)
        and re.search(r"->\s*(\w{4}|\w+ \w+ \w+ \w+)\s*$", one.value)
        for one in ast.walk(value)
    )


def _mentions_projection(node: ast.AST) -> bool:
    return any(
        (isinstance(one, ast.Attribute) and one.attr in _PROJECTIONS)
        or (isinstance(one, ast.Constant) and one.value in _PROJECTIONS)
        for one in ast.walk(node)
    )


def _drawn(node: ast.AST) -> Iterator[tuple[str, int, str]]:
    if isinstance(node, ast.Assign):
        fresh = isinstance(node.value, ast.Call) and _last(node.value.func) in (
            "Linear",
            "Parameter",
            "randn",
            "randn_like",
        )
        if fresh and any(map(_mentions_projection, node.targets)):
            yield "projection drawn", node.lineno, ""
    is_draw = isinstance(node, ast.Call) and _DRAWS.match(_last(node.func))
    if is_draw and any(map(_mentions_projection, [node.func, *node.args])):
        yield "projection drawn", node.lineno, ""
    if isinstance(node, ast.Call) and _last(node.func) == "setattr" and len(node.args) == 3:
        drawn = isinstance(node.args[2], ast.Call) and _last(node.args[2].func) == "Linear"
        if drawn and _mentions_projection(node.args[1]):
            yield "projection drawn", node.lineno, ""


def _cast(node: ast.For | ast.AsyncFor) -> Iterator[tuple[str, int, str]]:
    over = {_last(one.func) for one in ast.walk(node.iter) if isinstance(one, ast.Call)}
    if not over & {"named_parameters", "parameters", "named_modules", "modules"}:
        return
    for inner in ast.walk(node):
        if not isinstance(inner, ast.If) or not re.search(
            r"lora|requires_grad", ast.unparse(inner.test)
        ):
            continue
        if "not " in ast.unparse(inner.test):
            continue
        for call in (one for part in inner.body for one in ast.walk(part)):
            if not isinstance(call, ast.Call):
                continue
            name = _last(call.func)
            kind = _CASTS.get(name)
            if name == "to":
                said = " ".join(map(ast.unparse, [*call.args, *(k.value for k in call.keywords)]))
                match = re.search(r"\b(bfloat16|float16|half|float32)\b", said)
                kind = {"half": "float16"}.get(match[1], match[1]) if match else None
            if kind:
                yield "adapter cast", call.lineno, kind


def _seeded(node: ast.For | ast.AsyncFor) -> Iterator[tuple[str, int, str]]:
    if not re.search(r"epoch", ast.unparse(node.target) + ast.unparse(node.iter)):
        return
    changing = {one.id for one in ast.walk(node.target) if isinstance(one, ast.Name)}
    for part in node.body:
        for call in ast.walk(part):
            if not isinstance(call, ast.Call) or _last(call.func) not in _SEEDS:
                continue
            named = {one.id for one in ast.walk(call) if isinstance(one, ast.Name)}
            if call.args and not named & changing:
                yield "seeded each epoch", call.lineno, ast.unparse(call)


def passes_of_a_step(node: ast.If) -> ast.expr | None:
    """`accumulate` of `if (step + 1) % accumulate == 0: optimizer.step()`, also where more ends the epoch."""
    steps = any(
        isinstance(one, ast.Call)
        and _last(one.func) == "step"
        and re.search(r"optim|scaler", ast.unparse(one))
        for part in node.body
        for one in ast.walk(part)
    )
    for part in ast.walk(node.test) if steps else ():
        if isinstance(part, ast.BinOp) and isinstance(part.op, ast.Mod):
            return part.right
    return None


def _fixed(node: ast.ClassDef) -> Iterator[tuple[str, int, str]]:
    """A sampler that seeds itself anew each time that it is asked for its order."""
    if not any("Sampler" in ast.unparse(base) for base in node.bases):
        return
    for method in node.body:
        if not isinstance(method, ast.FunctionDef) or method.name != "__iter__":
            continue
        if "epoch" in ast.unparse(method):
            return
        for call in ast.walk(method):
            seeds = isinstance(call, ast.Call) and _last(call.func) in (
                *_SEEDS,
                "Random",
                "default_rng",
            )
            if seeds and call.args:
                yield "fixed sampler", call.lineno, f"{node.name}.__iter__, {ast.unparse(call)}"
                return


def _repeated(node: ast.ListComp | ast.GeneratorExp) -> Iterator[tuple[str, int, str]]:
    if len(node.generators) == 2 and _is_row_of_page(
        node.elt, node.generators[0].target, node.generators[1]
    ):
        yield "pages repeated", node.lineno, ast.unparse(node.generators[1].iter)


def _repeated_by_loop(node: ast.For | ast.AsyncFor) -> Iterator[tuple[str, int, str]]:
    for inner in node.body:
        if not isinstance(inner, ast.For):
            continue
        for call in ast.walk(inner):
            adds = isinstance(call, ast.Call) and _last(call.func) == "append" and call.args
            adds = adds or isinstance(call, ast.Yield)
            row = call.args[0] if isinstance(call, ast.Call) and adds else None
            row = call.value if isinstance(call, ast.Yield) else row
            if row is not None and _is_row_of_page(row, node.target, inner):
                yield "pages repeated", call.lineno, ast.unparse(inner.iter)


def _is_row_of_page(row: ast.expr, outer: ast.expr, inner: ast.comprehension | ast.For) -> bool:
    """Whether a row has the page of an outer loop and a query of an inner one over its queries."""
    if not isinstance(row, ast.Dict | ast.Tuple | ast.Call):
        return False
    names = {one.id for one in ast.walk(outer) if isinstance(one, ast.Name)}
    if isinstance(inner.iter, ast.List | ast.Tuple) and len(inner.iter.elts) < 2:
        return False
    from_page = {one.id for one in ast.walk(inner.iter) if isinstance(one, ast.Name)}
    is_queries = re.search(r"quer|question", ast.unparse(inner.iter), re.IGNORECASE)
    inside = [
        ast.unparse(one) for one in ast.walk(row) if isinstance(one, ast.Subscript | ast.Attribute)
    ]
    has_page = any(
        re.split(r"\W", one, maxsplit=1)[0] in names and _PAGE.search(one) for one in inside
    )
    has_page = has_page or any(_is_named_page(one, names) for one in ast.walk(row))
    return bool(names & from_page) and bool(is_queries) and has_page


def _is_named_page(node: ast.AST, names: set[str]) -> bool:
    """Whether a row says a page by a loop's own variable: its number or itself, under a page's name."""
    if isinstance(node, ast.Dict):
        pairs = zip(node.keys, node.values, strict=True)
        return any(_is_page_value(ast.unparse(key), value, names) for key, value in pairs if key)
    if isinstance(node, ast.keyword):
        return _is_page_value(node.arg or "", node.value, names)
    return isinstance(node, ast.Tuple) and any(
        isinstance(one, ast.Name) and one.id in names and _PAGE.search(one.id) for one in node.elts
    )


def _is_page_value(key: str, value: ast.expr, names: set[str]) -> bool:
    return bool(_PAGE.search(key)) and isinstance(value, ast.Name) and value.id in names
