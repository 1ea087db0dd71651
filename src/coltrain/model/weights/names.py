"""What each library, in each era, calls the same tensors.

A file has one way of naming: a single key of another era in it means that two models were mixed, or
that half of one was renamed, and no mapping would then be more than a guess.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from coltrain.errors import ModelError

PROJECTION = "custom_text_proj"
_OWN_PROJECTION = (f"{PROJECTION}.", f"{PROJECTION}.")
_NATIVE_PROJECTION = ("embedding_proj_layer.", f"{PROJECTION}.")


@dataclass(frozen=True)
class Names:
    """One way of naming.

    Attributes:
        name: Short name, as reports say it.
        prefixes: Pairs of the file's prefix and ColQwen2's. Prefixes alone differ between eras.
        output_layer: Key of the tied output layer, which ColQwen2 has no use for.
    """

    name: str
    prefixes: tuple[tuple[str, str], ...]
    output_layer: str

    def canonical(self, key: str) -> str | None:
        """A key under ColQwen2's names; None if it is not of this way of naming."""
        for theirs, ours in self.prefixes:
            if key.startswith(theirs):
                return ours + key.removeprefix(theirs)
        return None

    def original(self, name: str) -> str:
        """The reverse: what this way of naming calls one of ColQwen2's tensors or modules."""
        dotted = f"{name}."  # a module's own name ends where its tensors' names go on
        for theirs, ours in self.prefixes:
            if dotted.startswith(ours):
                return (theirs + dotted.removeprefix(ours)).removesuffix(".")
        return name

    def knows(self, key: str) -> bool:
        """Whether a key is of this way of naming."""
        return key == self.output_layer or self.canonical(key) is not None


def _language_model(prefix: str) -> tuple[tuple[str, str], ...]:
    return tuple(
        (f"{prefix}{part}.", f"language_model.{part}.")
        for part in ("embed_tokens", "layers", "norm")
    )


NAMES = {
    names.name: names
    for names in (
        # colpali-engine under transformers >= 4.52, a bare Qwen2VLModel, and coltrain
        Names(
            "colqwen2",
            (("visual.", "visual."), ("language_model.", "language_model."), _OWN_PROJECTION),
            "lm_head.weight",
        ),
        # Qwen/Qwen2-VL-2B-Instruct, vidore/colqwen2-base, colpali-engine before 0.3.11
        Names(
            "released",
            (("visual.", "visual."), *_language_model("model."), _OWN_PROJECTION),
            "lm_head.weight",
        ),
        # Qwen2VLForConditionalGeneration as transformers >= 4.52 has it in memory, and saved it
        Names(
            "transformers",
            (
                ("model.visual.", "visual."),
                ("model.language_model.", "language_model."),
                _OWN_PROJECTION,
            ),
            "lm_head.weight",
        ),
        # ColQwen2ForRetrieval of transformers 5
        Names(
            "native-5",
            (
                ("vlm.visual.", "visual."),
                ("vlm.language_model.", "language_model."),
                _NATIVE_PROJECTION,
            ),
            "vlm.lm_head.weight",
        ),
        # ColQwen2ForRetrieval of transformers 4.53
        Names(
            "native-4.53",
            (
                ("vlm.model.visual.", "visual."),
                ("vlm.model.language_model.", "language_model."),
                _NATIVE_PROJECTION,
            ),
            "vlm.lm_head.weight",
        ),
        # the same converted before transformers 4.52 moved the towers
        Names(
            "native-released",
            (("vlm.visual.", "visual."), *_language_model("vlm.model."), _NATIVE_PROJECTION),
            "vlm.lm_head.weight",
        ),
    )
}


def map_names(
    keys: Mapping[str, str] | Iterable[str], *, key_mapping: bool = True, prefix: str = ""
) -> tuple[Names, dict[str, str | None]]:
    """The way of naming that a checkpoint's keys have, and what each is to ColQwen2.

    Args:
        keys: Of all its files; with the file of each, for the error, if a mapping.
        key_mapping: False insists on ColQwen2's own names.
        prefix: What stands before each key, and is kept: `base_model.model.` in adapters.

    Returns:
        The way of naming, and for each key the name in ColQwen2, None for the output layer.

    Raises:
        ModelError: A key is of no known way, or keys of two are mixed, or one is not ColQwen2's
            own where that was asked for.
    """
    files = keys if isinstance(keys, Mapping) else dict.fromkeys(keys)
    if not key_mapping:
        _refuse_renamed(files, prefix)
    inner = {key: key.removeprefix(prefix) if key.startswith(prefix) else None for key in files}
    for names in NAMES.values():
        if all(bare is not None and names.knows(bare) for bare in inner.values()):
            return names, {
                key: None if bare == names.output_layer else prefix + names.canonical(bare)
                for key, bare in inner.items()
            }
    for key, bare in inner.items():
        if bare is None or not any(names.knows(bare) for names in NAMES.values()):
            raise ModelError(
                "unknown-weight",
                "a tensor's name belongs to no layout of Qwen2-VL or ColQwen2 that coltrain knows.",
                where=files[key],
                received=key,
                expected=", ".join(
                    f"{prefix}{start}*"
                    for start in (
                        "visual.",
                        "language_model.",
                        "model.",
                        f"{PROJECTION}.",
                        "vlm.",
                        "embedding_proj_layer.",
                    )
                ),
            )
    first, other = _two_ways(inner)
    raise ModelError(
        "mixed-layouts",
        "the tensors' names are of more than one layout.",
        where=_places(files[first], files[other]),
        received=f"{first} beside {other}",
        expected="every name of one layout: " + "; ".join(NAMES),
        suggestion="save the model again with one library; the files of two were put together",
    )


def _two_ways(inner: Mapping[str, str]) -> tuple[str, str]:
    """A key, and the first one that no way of naming has together with those before it."""
    possible, earlier = list(NAMES.values()), next(iter(inner))
    for key, bare in inner.items():
        left = [names for names in possible if names.knows(bare)]
        if not left:
            # Of those before, one that the newcomer's ways do not have says most.
            ways = [names for names in NAMES.values() if names.knows(bare)]
            for before, inside in inner.items():
                if before == key:
                    break
                if not any(names.knows(inside) for names in ways):
                    return before, key
            return earlier, key
        possible, earlier = left, key
    raise AssertionError("all keys have one way of naming in common")


def _places(first: str | None, other: str | None) -> str | None:
    return first if first == other or other is None else f"{first}, {other}"


def _refuse_renamed(files: Mapping[str, str | None], prefix: str) -> None:
    own = NAMES["colqwen2"]
    for key, file in files.items():
        bare = key.removeprefix(prefix)
        if not key.startswith(prefix) or own.canonical(bare) is None:
            raise ModelError(
                "unmapped-key",
                "a tensor's name is not ColQwen2's own, and mapping of names is switched off.",
                where=file,
                received=key,
                expected=f"{prefix}visual.*, {prefix}language_model.*, {prefix}{PROJECTION}.*",
                suggestion="leave out --no-key-mapping; the layout's names are then mapped",
            )
