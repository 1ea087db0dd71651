"""Traps of what the model reads: prefix, suffix, prompt, padding."""

import json
import re
from collections.abc import Iterator

from coltrain.recipe.template import REGISTERED
from coltrain.reproduction.targets import Target
from coltrain.reproduction.targets.engine import NO_PREFIX_FROM
from coltrain.reproduction.targets.versions import Versions
from coltrain.reproduction.traps.finding import Outcome, failed, passed, unknown
from coltrain.reproduction.traps.published import goes_its_own_way, goes_on_from_trained

PREFIX = "Query: "
_AUGMENTATION = "<|endoftext|>"
_NUM_AUGMENTATION = 10
_REPEATS = re.compile(r"range\(|['\"]\s*\*\s*\d")


def _strings(target: Target) -> Iterator[tuple[str, dict[str, str]]]:
    """Every template that a target states, with its place: of the recipe, the card, each result."""
    if target.recipe is not None:
        yield "recipe, model.template", target.recipe.model.template.model_dump()
    card = target.files.get("coltrain.json") if target.files else None
    if isinstance(card, dict) and isinstance(card.get("template"), dict):
        yield "coltrain.json, template", card["template"]
    for name in ("processor_config.json", "preprocessor_config.json"):
        stated = (target.files or {}).get(name) or {}
        names = {"query_prefix": "query_prefix", "visual_prompt_prefix": "page_prompt"}
        found = {ours: stated[theirs] for theirs, ours in names.items() if theirs in stated}
        if found:
            yield name, found
    if target.run is not None:
        for file in (target.run.folder / "evaluation").glob("*.json"):
            try:
                results = json.loads(file.read_text(encoding="utf-8")).get("results", [])
            except (OSError, ValueError, AttributeError):
                continue
            for result in results:
                found = result.get("template") if isinstance(result, dict) else None
                if isinstance(found, dict):
                    yield f"evaluation/{file.name}, template", found


def prefix_drift(target: Target) -> Outcome:
    """Trap 4: queries or pages are read with other strings than those of training."""
    stated = list(_strings(target))
    first = stated[0] if stated else None
    for place, template in stated:
        registered = REGISTERED.get(str(template.get("name")))
        for key in ("query_prefix", "query_suffix", "page_prompt"):
            if key not in template:
                continue
            if registered and template.get(key) != registered[key]:
                return failed(
                    f"{template['name']} with {key} {template.get(key)!r}",
                    repr(registered[key]),
                    place,
                )
            if first and template.get(key) != first[1].get(key):
                return failed(
                    f"{key} {template.get(key)!r}",
                    f"{first[1].get(key)!r}, as in {first[0]}",
                    place,
                )
    probe = _probe(target)
    if probe is not None:
        return probe
    facts = target.facts
    prefix, prompt = facts["template.query_prefix"], facts["template.page_prompt"]
    if isinstance(prompt.value, str):
        problem = _prompt_problem(prompt.value)
        if problem:
            return failed(repr(prompt.value), problem, prompt)
    if target.kind in ("sentence-transformers", "pylate", "transformers"):
        return passed("the library has its own rendering, see three-query-renderings")
    rendering = _rendering(target)
    if rendering is not None:
        return rendering
    card = (target.files or {}).get("chat_template.json") or {}
    if target.kind == "model" and isinstance(card, dict) and card.get("chat_template"):
        text = str(card["chat_template"])
        if (
            target.facts.value("model.layout") == "adapter"
            and "Describe" in text
            and "Describe the image." not in text
        ):
            return failed(
                "another prompt in chat_template.json", "Describe the image.", "chat_template.json"
            )
    if not prefix.is_known:
        engine = facts["versions.colpali-engine"]
        if target.kind == "model" and engine.is_known and engine.value.all_from(*NO_PREFIX_FROM):
            found = f"colpali-engine {engine.value}, which reads a query without {PREFIX!r}"
            return failed(found, f"{PREFIX!r}, as the published models read", engine)
        if target.kind == "model":
            return unknown("a card that says the template of training")
        return unknown("the version of colpali-engine: the prefix is gone since 0.3.13")
    by_hand = target.mentioned("prefixed text")
    if prefix.value == "" and by_hand:
        return passed(f"{PREFIX!r} before each query, by the script itself", by_hand)
    if goes_its_own_way(target) and not goes_on_from_trained(target):
        return passed("strings of its own from the base on, for a model of its own", prefix.where)
    if prefix.value == "" or (isinstance(prefix.value, str) and PREFIX.strip() not in prefix.value):
        return failed(
            f"prefix {prefix.value!r}", f"{PREFIX!r}, as the published models read", prefix
        )
    return passed(f"prefix {prefix.value!r}", prefix.where)


def _prompt_problem(prompt: str) -> str:
    if "<|image_pad|>" not in prompt and "<image>" not in prompt:
        return "a prompt with <|image_pad|>"
    if prompt not in {one["page_prompt"] for one in REGISTERED.values()}:
        return "<|im_start|>user…Describe the image.<|im_end|>, as published"
    return ""


def _probe(target: Target) -> Outcome | None:
    """A run's recorded token ids against its own template and tokenizer."""
    run = target.run
    if run is None or target.recipe is None or target.folder is None:
        return None
    file = target.folder / "tokenizer.json"
    ids, text = run.fact("probe.query_ids"), run.fact("probe.query")
    if not file.is_file() or not ids or not text:
        return None
    from tokenizers import Tokenizer

    template = target.recipe.model.template
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # tokenizers raises nothing narrower
        target.not_read.append(f"model/{file.name}: no tokenizer ({error})")
        return None
    whole = f"{template.query_prefix}{text}{template.query_suffix}"
    expected = tokenizer.encode(whole, add_special_tokens=False).ids
    if expected == ids:
        return None
    return failed(
        repr(tokenizer.decode(ids, skip_special_tokens=False)),
        repr(whole),
        "run.json, probe.query_ids",
    )


def affixes_doubled_or_absent(target: Target) -> Outcome:
    """Trap 5: prefix or augmentation tokens twice, not at all, or as letters."""
    facts = target.facts
    engine = facts.value("versions.colpali-engine", Versions())
    adds = not engine.all_from(*NO_PREFIX_FROM) or facts.value("template.query_prefix")
    for mention in target.mentions:
        if mention.name == "process_queries" and adds and re.search(r"Query: ", mention.text):
            return failed(
                "`Query: ` before process_queries, which adds it", "the query alone", mention.where
            )
        if mention.name == "process_queries" and _AUGMENTATION in mention.text:
            return failed(
                "augmentation before process_queries, which adds it",
                "the query alone",
                mention.where,
            )
    by_hand = target.mentioned("prefixed text")
    bare = target.mentioned("bare processor")
    renders = target.mentioned("process_queries") or (by_hand and target.mentioned("augmentation"))
    if bare and target.kind == "colpali-engine" and not renders:
        found = "queries go to the processor itself, which adds neither prefix nor augmentation"
        return failed(found, "process_queries", bare)
    where = target.mentioned("process_texts")
    if where and not target.mentioned("process_queries"):
        found = "queries go through process_texts, which adds nothing"
        if by_hand:
            found = "queries go through process_texts without augmentation tokens"
        if not (by_hand and target.mentioned("augmentation")):
            return failed(found, "process_queries", where)
    elif by_hand and PREFIX.strip() in str(target.facts.value("template.query_prefix", "")):
        return failed(
            f"{PREFIX!r} before each query in the script, and once more by the processor",
            "one of the two",
            by_hand,
        )
    for place, template in _strings(target):
        outcome = _affixes(
            str(template.get("query_prefix", "")), template.get("query_suffix"), place
        )
        if outcome is not None:
            return outcome
    rendered = target.files.get("config_sentence_transformers.json") if target.files else None
    if isinstance(rendered, dict) and target.folder is not None:
        jinja = target.folder / "chat_template.jinja"
        text = jinja.read_text(encoding="utf-8") if jinja.is_file() else ""
        prompt = str((rendered.get("prompts") or {}).get("query") or "")
        if "Query:" in text and "Query:" in prompt:
            return failed(
                f"prompt {prompt!r} before a chat template that adds it",
                "one of the two",
                "config_sentence_transformers.json, prompts.query",
            )
    augmented = _augmented(target)
    if augmented is not None:
        return augmented
    suffix, prefix = facts["template.query_suffix"], facts["template.query_prefix"]
    outcome = _affixes(
        prefix.value if isinstance(prefix.value, str) else "", suffix.value, suffix.where
    )
    if outcome is not None:
        return outcome
    if prefix.is_known and isinstance(prefix.value, str) and prefix.value.count("Query:") > 1:
        return failed(f"prefix {prefix.value!r}", repr(PREFIX), prefix)
    mteb = facts.value("versions.mteb", Versions())
    if mteb.all_from(2, 0, 1) and mteb.all_before(2, 12, 16):
        return failed(
            f"mteb {mteb} puts prefix and augmentation around what process_queries puts them around",
            "mteb 2.12.16 or later",
            facts["versions.mteb"],
        )
    if suffix.is_known or target.mentioned("process_queries"):
        return passed("ten augmentation tokens, one prefix", suffix.where)
    if target.kind in ("colpali-engine",):
        return passed("the collator's own process_queries", "colpali-engine")
    return unknown("how queries were rendered when they were trained or measured")


def _affixes(prefix: str, suffix: object, place: str) -> Outcome | None:
    if prefix.count("Query:") > 1:
        return failed(f"prefix {prefix!r}", repr(PREFIX), place)
    if not isinstance(suffix, str):
        return None
    count = suffix.count(_AUGMENTATION)
    if count != _NUM_AUGMENTATION or suffix.replace(_AUGMENTATION, "").strip():
        found = f"{count} augmentation tokens" if count else f"suffix {suffix!r}"
        return failed(found, f"{_NUM_AUGMENTATION} times {_AUGMENTATION}", place)
    return None


def padding_or_cast(target: Target) -> Outcome:
    """Trap 25: padding on the right, or a cast that takes the rotary frequencies along."""
    side = target.facts["template.padding_side"]
    stated = (target.files or {}).get("tokenizer_config.json") or {}
    if isinstance(stated, dict) and stated.get("padding_side") == "right":
        return failed(
            "padding on the right", "left, as in training", "tokenizer_config.json, padding_side"
        )
    cast = target.facts["precision.cast_whole_model"]
    if side.value == "right":
        return failed("padding on the right", "left, as in training", side)
    if cast.is_known:
        return failed(
            f".{cast.value}() on a whole model, rotary frequencies included",
            "from_pretrained(torch_dtype=…), which leaves them in float32",
            cast,
        )
    return passed(
        f"padding {side.value}" if side.is_known else "no cast of a whole model", side.where
    )


def _rendering(target: Target) -> Outcome | None:
    """What a sentence-transformers folder renders by its chat template, against its card."""
    if target.folder is None or "modules.json" not in target.files:
        return None
    file = target.folder / "chat_template.jinja"
    text = file.read_text(encoding="utf-8") if file.is_file() else ""
    other = target.files.get("chat_template.json") or {}
    text = text or str(other.get("chat_template", "") if isinstance(other, dict) else "")
    if not text:
        return None
    prompts = json.dumps(target.files.get("config_sentence_transformers.json") or {})
    card = (target.files.get("coltrain.json") or {}).get("template") or {}
    prefix = str(card.get("query_prefix", PREFIX))
    for wanted in (prefix, *re.split(r"<\|image_pad\|>", str(card.get("page_prompt", "")))):
        shown = wanted.replace("\n", "\\n")
        if wanted and wanted not in text and shown not in text and wanted not in prompts:
            return failed(f"no {wanted!r} in the chat template", "the card's strings", file.name)
    count = text.count(_AUGMENTATION)
    if card and count < str(card.get("query_suffix", "")).count(_AUGMENTATION):
        return failed(f"{count} augmentation tokens", f"{_NUM_AUGMENTATION}", file.name)
    return None


def _augmented(target: Target) -> Outcome | None:
    """Whether the chat template of a folder with ColQwen2's strings appends its augmentation tokens."""
    if target.folder is None or "modules.json" not in target.files:
        return None
    file = target.folder / "chat_template.jinja"
    text = file.read_text(encoding="utf-8") if file.is_file() else ""
    prompts = json.dumps(target.files.get("config_sentence_transformers.json") or {})
    if "Describe the image." not in text or PREFIX.strip() not in text + prompts:
        return None  # another model's strings
    if _REPEATS.search(text) or _AUGMENTATION in prompts:
        return None  # repeated where it is rendered
    page = text.count(f"<|im_end|>{_AUGMENTATION}")
    count = text.count(_AUGMENTATION) - page
    if count >= _NUM_AUGMENTATION:
        return None
    return failed(
        f"{count} augmentation tokens after a query",
        f"{_NUM_AUGMENTATION} times {_AUGMENTATION}",
        file.name,
    )


def _foreign_processor(target: Target) -> Outcome | None:
    """colpali-engine's model read through transformers' processor, whose class has the same name."""
    if target.kind != "colpali-engine":
        return None
    for call in target.calls:
        if call.last != "from_pretrained" or not call.name.startswith("transformers."):
            continue
        name = call.owner
        base = str(call.argument("pretrained_model_name_or_path", 0, ""))
        is_retriever = "col" in base.lower() and not base.endswith("-base")
        if name == "ColQwen2Processor" or (name == "AutoProcessor" and is_retriever):
            return failed(
                f"transformers' {name} before colpali-engine's model",
                "colpali_engine.models.ColQwen2Processor",
                call.where,
            )
    return None


def three_query_renderings(target: Target) -> Outcome:
    """Trap F5: a query read as another library renders it: no prefix, no augmentation, a line break."""
    facts = target.facts
    base = str(facts.value("model.base", ""))
    foreign = _foreign_processor(target)
    if foreign is not None:
        return foreign
    if target.kind in ("sentence-transformers", "pylate"):
        prefix = facts["template.query_prefix"]
        if re.search(r"qwen\d?.*vl", base, re.IGNORECASE) and "col" not in base.lower():
            if prefix.is_known and PREFIX.strip() in str(prefix.value):
                return passed(f"prefix {prefix.value!r}", prefix.where)
            return failed(
                f"{base} is rendered by its chat template, without prefix and augmentation",
                f"prompts={{'query': {PREFIX!r}}} and ten {_AUGMENTATION}",
                facts["model.base"],
            )
        version = facts.value("versions.transformers", Versions())
        if base.endswith("-hf") and not version.all_before(5, 15):
            return failed(
                "transformers' ColQwen2Processor, which ends a query with a line break",
                "the same strings in training and evaluation, without the line break",
                facts["model.base"],
            )
        return passed(f"{base} brings its own rendering", facts["model.base"].where)
    rendering = _rendering(target)
    if rendering is not None:
        return rendering
    for place, template in _strings(target):
        suffix = str(template.get("query_suffix", ""))
        if suffix.endswith("\n"):
            return failed("a line break after the augmentation tokens", "none", place)
    if target.folder is not None and facts.value("model.layout") == "transformers-native":
        version = facts.value("versions.transformers", Versions())
        if not (target.files or {}).get("coltrain.json"):
            if version.all_from(5, 15):
                return failed(
                    f"transformers {version} ends a query with a line break",
                    "the rendering of training",
                    facts["versions.transformers"],
                )
            return unknown("which version of transformers renders the queries")
    return passed("one rendering, stated")
