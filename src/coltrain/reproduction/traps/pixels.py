"""Traps of the pixel budget of a page."""

import re

from coltrain.reproduction.targets import Target
from coltrain.reproduction.targets.versions import Versions
from coltrain.reproduction.traps.finding import Outcome, failed, passed, unknown
from coltrain.reproduction.traps.published import is_colqwen2

_PIXELS = 28 * 28
_PUBLISHED = 768
_LARGEST = 1024
_A4 = (1654, 2339)


def pixel_budget_ignored(target: Target) -> Outcome:
    """Trap 21: a budget that nothing reads, or files that state two."""
    facts = target.facts
    outcome = _two_budgets(target) or _probe(target)
    if outcome is not None:
        return outcome
    budget, edge = facts["pixels.max_visual_tokens"], facts["pixels.longest_edge"]
    if target.recipe is not None:
        return passed(f"{budget.value} visual tokens, measured on a probe page", budget.where)
    for call in target.calls:
        for key in call.later:
            if key == "max_pixels" and "Processor" in call.name:
                return failed(
                    "processor.max_pixels, which is never read", "max_num_visual_tokens", call.where
                )
            if (
                key == "image_processor.max_pixels"
                and "image_processor.size.longest_edge" not in call.later
            ):
                version = facts.value("versions.transformers", Versions())
                if version.all_from(4, 50) and version.all_before(5):
                    return failed(
                        f"image_processor.max_pixels alone, which transformers {version}'s fast processor ignores",
                        "size['longest_edge'] as well",
                        call.where,
                    )
    if budget.is_known and isinstance(budget.value, int):
        if edge.is_known and edge.value != budget.value * _PIXELS and target.kind != "model":
            return failed(
                f"{edge.value} pixels and {budget.value} tokens",
                f"{budget.value * _PIXELS} pixels",
                edge,
            )
        return passed(f"{budget.value} visual tokens", budget.where)
    if edge.is_known and isinstance(edge.value, int):
        if is_colqwen2(target) and edge.value > _LARGEST * _PIXELS:
            return failed(
                f"{edge.value} pixels: up to {edge.value // _PIXELS} visual tokens a page",
                f"{_PUBLISHED * _PIXELS}: {_PUBLISHED}",
                edge,
            )
        return passed(f"{edge.value} pixels", edge.where)
    if target.kind != "colpali-engine":
        return (
            passed("no budget is stated") if target.kind == "model" else unknown("the pixel budget")
        )
    engine = facts.value("versions.colpali-engine", Versions())
    if engine.all_before(0, 3, 10):
        return passed("768 visual tokens, that version's default", "colpali-engine")
    base = _processor_base(target)
    if (
        base
        and re.search(r"qwen2-?vl.*instruct", base, re.IGNORECASE)
        and engine.all_from(0, 3, 10)
    ):
        return failed(
            f"none stated; that of {base} allows thousands of tokens",
            "max_num_visual_tokens=768",
            base,
        )
    if engine.all_before(0, 3, 11):
        return passed("768 visual tokens, the default of 0.3.9 and earlier", "colpali-engine")
    return unknown("max_num_visual_tokens: since 0.3.10 the checkpoint's own budget is the default")


def _processor_base(target: Target) -> str:
    for call in target.calls:
        name = str(call.argument("pretrained_model_name_or_path", 0, ""))
        if "Processor" in call.owner or "Processor" in str(
            call.argument("class_to_instanciate", default="")
        ):
            return name
    return ""


def _two_budgets(target: Target) -> Outcome | None:
    """Files of one folder that state different budgets, or another one than the card."""
    files = target.files or {}
    tokens = (files.get("coltrain.json") or {}).get("max_visual_tokens")
    stated: list[tuple[int, str]] = []
    for name in ("preprocessor_config.json", "processor_config.json"):
        content = files.get(name) or {}
        inner = content.get("image_processor") or content
        size = inner.get("size") or {}
        found = [
            (value, f"{name}, {key}")
            for key, value in (
                ("size.longest_edge", size.get("longest_edge")),
                ("size.max_pixels", size.get("max_pixels")),
                ("max_pixels", inner.get("max_pixels")),
            )
            if isinstance(value, int)
        ]
        stated += found
        # Our own folders are read by their card; an export states the budget where its reader looks.
        is_export = "processor_class" in content
        for value, where in found if tokens and is_export else []:
            if value != tokens * _PIXELS:
                wanted = f"{tokens * _PIXELS}: {tokens} visual tokens, as the card says"
                return failed(f"{value} pixels", wanted, where)
    values = {value for value, _ in stated}
    if len(values) > 1:
        found_text = " and ".join(f"{value} ({where})" for value, where in stated)
        return failed(found_text, "one budget", stated[0][1])
    return None


def _probe(target: Target) -> Outcome | None:
    """The visual tokens that a run counted on its probe page."""
    run = target.run
    if run is None or target.recipe is None:
        return None
    card = (target.files or {}).get("coltrain.json") or {}
    asked = target.recipe.model.max_visual_tokens
    if card.get("max_visual_tokens", asked) != asked:
        return failed(
            f"{card['max_visual_tokens']} visual tokens in the model's card",
            f"{asked}, as the run's recipe says",
            "model/coltrain.json, max_visual_tokens",
        )
    counted = run.fact("probe.visual_tokens")
    if (
        not isinstance(counted, int)
        or run.fact("probe.page") != f"white, {_A4[0]} x {_A4[1]} pixels"
    ):
        return None
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

    budget = target.recipe.model.max_visual_tokens
    height, width = smart_resize(
        _A4[1], _A4[0], factor=28, min_pixels=4 * _PIXELS, max_pixels=budget * _PIXELS
    )
    expected = height * width // _PIXELS
    if counted != expected:
        return failed(
            f"{counted} visual tokens on the probe page",
            f"{expected} at {budget} tokens",
            "run.json, probe.visual_tokens",
        )
    return None
