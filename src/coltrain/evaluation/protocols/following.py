"""A model under a protocol: its text, and what that changes."""

from collections.abc import Iterable
from dataclasses import replace

from coltrain.errors import UsageError
from coltrain.evaluation.protocols.protocol import Protocol
from coltrain.model.retriever import Retriever
from coltrain.recipe import template_named


def refuse_contradictions(
    protocol: Protocol, template: str | None, dtype: str | None, padding: str = "masked"
) -> None:
    """Say what was asked for beside a protocol and is not the protocol's.

    Args:
        protocol: Asked for.
        template: Asked for beside it; None where none was.
        dtype: Type of the weights that was asked for beside it.
        padding: What padding may do, by `--padding`; masked where nobody asked.

    Raises:
        UsageError: `[template-against-protocol]`, `[dtype-against-protocol]`,
            `[padding-against-protocol]`
    """
    if protocol.template is not None and padding != "masked":
        raise UsageError(
            "padding-against-protocol",
            "the protocol says itself what padding may do.",
            where="--padding beside --protocol",
            received=f"{padding} beside {protocol.name}",
            expected=f"{protocol.padding}, as the protocol has it",
            suggestion="leave out one of them",
        )
    if protocol.template is not None and template is not None:
        asked, sent = template_named(template), template_named(protocol.template)
        if asked.strings != sent.strings:
            raise UsageError(
                "template-against-protocol",
                "the protocol sends other text than the template.",
                where="--template beside --protocol",
                received=f"{asked.name} beside {protocol.name}",
                expected=sent.name,
                suggestion="leave out one of them",
            )
    if protocol.score_dtype == "bfloat16" and dtype not in (None, "bfloat16"):
        raise UsageError(
            "dtype-against-protocol",
            "the protocol scores in the type of the weights, which is bfloat16.",
            where="--dtype beside --protocol",
            received=f"{dtype} beside {protocol.name}",
            expected="bfloat16",
            suggestion="leave out --dtype",
        )


def under_protocol(retriever: Retriever, protocol: Protocol) -> Retriever:
    """The model with the protocol's text in place of its own; the weights are shared.

    Args:
        retriever: With its own template.
        protocol: Whose template it gets; one without a template changes nothing.
    """
    own = retriever.built.preparer
    sent = own.template if protocol.template is None else template_named(protocol.template)
    if sent.strings == own.template.strings:
        return retriever
    return Retriever(replace(retriever.built, preparer=own.using(template=sent)))


def record_of(protocol: Protocol, own: Retriever, used: Retriever, texts: Iterable[str]) -> dict:
    """The protocol, and what it changed, for the document of results.

    Args:
        protocol: That was followed.
        own: The model with its own template.
        used: The model as it was used.
        texts: Of all queries.

    Returns:
        The protocol's record; `template` as it was used; `model_template`; and the numbers of
        queries, and of those whose tokens are not those of the model's own template.
    """
    texts = list(texts)
    changed = sum(own.query_ids(text) != used.query_ids(text) for text in texts)
    mine, theirs = own.built.preparer, used.built.preparer
    return {
        **protocol.record(),
        "template": theirs.template.name,
        "model_template": (mine.trained_template or mine.template).name,
        "queries": len(texts),
        "queries_with_other_tokens": changed,
        "pages_with_other_tokens": mine.template.page_prompt != theirs.template.page_prompt,
        "weights_dtype": str(used.built.model.dtype).removeprefix("torch."),
    }


def warning_of(record: dict) -> str | None:
    """What to say where a protocol changed what the model reads; None where it did not."""
    if not record["queries_with_other_tokens"] and not record["pages_with_other_tokens"]:
        return None
    pages = " and all pages" if record["pages_with_other_tokens"] else ""
    return (
        f"{record['name']} sends other text than the model was trained with "
        f"({record['template']}, not {record['model_template']}): "
        f"{record['queries_with_other_tokens']} of {record['queries']} queries{pages} are read "
        "with other tokens, and scores may be lower for it"
    )
