"""`explain`: which patches of a page a query matched."""

from pathlib import Path
from typing import Annotated

import typer

from coltrain import console
from coltrain.cli.options import (
    DeviceOption,
    DtypeOption,
    JsonOption,
    RevisionOption,
    TokensOption,
    quiet_libraries,
    retriever_for,
)
from coltrain.errors import UsageError


def explain(
    model: Annotated[str, typer.Argument(help="`tiny`, a run, a model folder, or a hub name.")],
    query: Annotated[str, typer.Option(help="The query, as typed.")],
    page: Annotated[Path, typer.Option(help="The page's image file.")],
    html: Annotated[Path | None, typer.Option(help="Page to write, with heat maps.")] = None,
    revision: RevisionOption = None,
    max_visual_tokens: TokensOption = None,
    template: Annotated[
        str | None, typer.Option(help="Template, for a model that does not say its own.")
    ] = None,
    dtype: DtypeOption = None,
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take a page's score for a query apart: for each query token its best patch."""
    if not query.strip():
        raise UsageError(
            "empty-query", "the query has no text.", where="--query", received=repr(query)
        )
    quiet_libraries()
    from coltrain.evaluation.explanation import explain as take_apart
    from coltrain.evaluation.export import read_pages
    from coltrain.evaluation.ranking_file import prepare_output

    if html is not None:
        prepare_output(html)
    [image] = read_pages([page])
    retriever = retriever_for(model, revision, template, max_visual_tokens, dtype, device)
    found = take_apart(retriever, query, image)
    if html is not None:
        from coltrain.reproduction.evaluation_report import explanation_page

        html.write_text(explanation_page(found, image, model, page.name), encoding="utf-8")
        console.stderr().print(f"page: {html}", soft_wrap=True)
    if as_json:
        console.print_json({"model": model, "page": str(page), **found.to_json()})
        return
    console.print_table(
        f"score {found.score:.4f}, {found.rows} x {found.columns} patches, counted from 0",
        ["query token", "of", "row", "column", "similarity", "adds to the score", "won by"],
        [
            [
                match.token,
                "the query" if match.is_word else "the template",
                str(match.row),
                str(match.column),
                f"{match.similarity:.4f}",
                f"{match.contribution:.4f}",
                "a patch" if match.won_by is None else f"the prompt's {match.won_by!r}",
            ]
            for match in found.matches
        ],
    )
