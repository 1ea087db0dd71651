"""`inspect`: what a model is, and that every tensor of it is accounted for."""

from typing import Annotated, Any

import typer

from coltrain import console
from coltrain.cli.options import (
    AllowPickleOption,
    BaseOption,
    DeviceOption,
    DtypeOption,
    JsonOption,
    NoKeyMappingOption,
    RevisionOption,
    TokensOption,
    quiet_libraries,
    retriever_for,
)


def inspect_model(
    model: Annotated[str, typer.Argument(help="`tiny`, a run, a model folder, or a hub name.")],
    revision: RevisionOption = None,
    base: BaseOption = None,
    template: Annotated[
        str | None, typer.Option(help="Template, for a model that does not say its own.")
    ] = None,
    max_visual_tokens: TokensOption = None,
    no_key_mapping: NoKeyMappingOption = False,
    allow_pickle: AllowPickleOption = False,
    dtype: DtypeOption = None,
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Load a model from any published layout, and say all that decides its embeddings."""
    quiet_libraries()
    from coltrain.model.inspection import inspect

    retriever = retriever_for(
        model,
        revision,
        template,
        max_visual_tokens,
        dtype,
        device,
        base=base,
        key_mapping=not no_key_mapping,
        allow_pickle=allow_pickle,
    )
    found = inspect(retriever.built)
    if as_json:
        console.print_json({"model": model, **found})
        return
    console.print_table(model, ["", "found"], _rows(found), is_text=True)
    console.print_table("audit: passed", ["check", "found"], _checks(found), is_text=True)


def _rows(found: dict[str, Any]) -> list[list[str]]:
    template, positions, hashes = found["template"], found["positions"], found["hashes"]
    query, page = found["probe_query"], found["probe_page"]
    rows = [
        ["layout", found["layout"]],
        ["names of tensors", _both(found["names"], found["adapter_names"])],
        *([_said(part), f"{n:,} parameters"] for part, n in found["parameters"].items()),
        *([f"type, {part}", _counted(types)] for part, types in found["dtypes"].items() if types),
        *_base_rows(found["base"]),
        *_lora_rows(found["lora"]),
        ["template", template["name"]],
        *([key, repr(template[key])] for key in ("query_prefix", "query_suffix", "page_prompt")),
        ["visual tokens at most", str(found["max_visual_tokens"])],
        *([f"visual tokens, {name}", str(n)] for name, n in found["visual_tokens"].items()),
        ["M-RoPE", f"{'on' if positions['mrope'] else 'off'}, {positions['mrope_section']}"],
        ["probe query", repr(query["text"])],
        ["its token ids", _ids(query["ids"])],
        ["probe page", f"{page['pixels'][0]} x {page['pixels'][1]} pixels"],
        ["its token ids", _ids(page["ids"])],
    ]
    rows += [[f"hash, {part}", digest] for part, digest in hashes.items() if digest]
    return rows


def _base_rows(base: dict[str, Any] | None) -> list[list[str]]:
    if base is None:
        return []
    revision = base["commit"] or base["revision"]
    rows = [["base", base["name"] + (f"@{revision}" if revision else "")]]
    if base["named"]:
        rows.append(["base that the adapter names", base["named"]])
    checks = {
        "hash": "its weights are those of training",
        "name": "it has the name that the adapter says",
        "not known": "whether it is the one of training is not known",
    }
    return [*rows, ["base, checked", checks[base["check"]]]]


def _lora_rows(lora: dict[str, Any] | None) -> list[list[str]]:
    if lora is None:
        return [["LoRA", "none"]]
    return [
        ["LoRA", f"r={lora['r']}, alpha={lora['alpha']:g}, dropout={lora['dropout']:g}"],
        ["LoRA coverage", lora["coverage"]],
        *(
            [f"LoRA, {_said(part)}", f"{done} of {of}"]
            for part, (done, of) in lora["by_part"].items()
        ),
    ]


def _checks(found: dict[str, Any]) -> list[list[str]]:
    audit, probe = found["audit"], found["audit"]["probe"]
    recorded = "recorded, and equal" if audit["hashes_recorded"] else "not recorded in this folder"
    rows = [
        ["tensors read", f"{sum(audit['file_types'].values())}: {', '.join(audit['files'])}"],
        ["missing, created", "; ".join(f"{k}: {v}" for k, v in audit["created"].items()) or "none"],
        ["left out", ", ".join(audit["left_out"]) or "none"],
        ["weight files not read", ", ".join(audit["unread"]) or "none"],
        ["NaN, infinite, constant matrices", "none"],
        ["constant biases and norms", ", ".join(audit["constant"]) or "none"],
        ["lora_B that are zero", _first(audit["untrained"])],
        ["hashes of tensors", recorded],
        ["two pages differ by", f"{probe['pages']:.4f}"],
        ["two queries differ by", f"{probe['queries']:.4f}"],
    ]
    if probe["adapter"] is not None:
        rows.append(["the adapter changes a page by", f"{probe['adapter']:.4f}"])
    return [*rows, *(["note", note] for note in audit["notes"])]


def _said(part: str) -> str:
    return part.replace("_", " ")


def _first(names: list[str]) -> str:
    return f"{len(names)}, first {names[0]}" if names else "none"


def _both(names: str, adapter_names: str | None) -> str:
    return names if adapter_names is None else f"{names}, adapter: {adapter_names}"


def _counted(types: dict[str, int]) -> str:
    return ", ".join(f"{name} ({count} tensors)" for name, count in types.items())


def _ids(ids: list[int]) -> str:
    """Ids in order; one that repeats is written once, with how often."""
    parts, place = [], 0
    while place < len(ids):
        end = place
        while end < len(ids) and ids[end] == ids[place]:
            end += 1
        parts.append(f"{ids[place]}" + (f" x {end - place}" if end - place > 1 else ""))
        place = end
    return ", ".join(parts)
