"""Functions of a script that nothing in it names: what was tried once and left there."""

import ast

# What runs functions that no line names.
_BY_NAME = ("fire", "globals", "locals", "eval", "exec", "sys", "defopt", "jsonargparse", "CLI")


def unused_functions(tree: ast.Module) -> set[str]:
    """Names of module-level functions that nothing of the script refers to, however indirectly.

    A function may still be meant for another file, or be found by a decorator or by its name: so none is
    unused in a script that starts nothing itself, and none with a decorator.
    """
    functions = {
        node.name: node
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    rest = [node for node in tree.body if node not in functions.values()]
    named = _named(rest)
    if not any(map(_starts, rest)) or named & set(_BY_NAME):
        return set()
    used = {name for name, node in functions.items() if node.decorator_list or name in named}
    waiting = list(used)
    while waiting:
        inner = _named([functions[waiting.pop()]]) & set(functions)
        waiting += inner - used
        used |= inner
    return set(functions) - used


def without_unused(tree: ast.Module) -> ast.Module:
    """The script without those functions."""
    unused = unused_functions(tree)
    kept = [node for node in tree.body if getattr(node, "name", None) not in unused]
    return ast.Module(kept, tree.type_ignores) if unused else tree


def _named(nodes: list[ast.stmt]) -> set[str]:
    found: set[str] = set()
    for top in nodes:
        for node in ast.walk(top):
            if isinstance(node, ast.Name):
                found.add(node.id)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.add(node.value)
            elif isinstance(node, ast.Import | ast.ImportFrom):
                found |= {alias.name.partition(".")[0] for alias in node.names}
    return found


def _starts(node: ast.stmt) -> bool:
    """Whether a statement of the module does something: the guard of `__main__`, or a call."""
    if isinstance(node, ast.If):
        return "__name__" in {one.id for one in ast.walk(node.test) if isinstance(one, ast.Name)}
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
