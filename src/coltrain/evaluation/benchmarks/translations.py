"""Which queries are translations of one another, from what was judged for them."""

from collections.abc import Mapping, Sequence


def base_queries(
    language_of: Mapping[str, str], qrels: Mapping[str, Mapping[str, int]]
) -> dict[str, str]:
    """For each judged query the one that it is a translation of.

    The translations of a query are one information need, so statistics must draw them together.
    No published table says which belong together, but a translation keeps the judgements of its
    query: queries of different languages with the same judged pages and scores are taken for
    translations, and where several queries of a language have the same judgements, the first goes
    with the first, in the order of the data. Where the languages have different numbers of them,
    all become one group: an interval that is too wide rather than one that is too narrow.

    Args:
        language_of: Query id to language, in the order of the data.
        qrels: Judgements; queries without any are left out.

    Returns:
        Query id to the id of the group's first query in the order of the data. In a single
        language every query is its own.

    Example:
        >>> pages = {"p1": 1}
        >>> base_queries({"q1": "french", "q2": "english"}, {"q1": pages, "q2": pages})
        {'q1': 'q1', 'q2': 'q1'}
    """
    judged = [query for query in language_of if qrels.get(query)]
    if len({language_of[query] for query in judged}) < 2:
        return {query: query for query in judged}
    alike: dict[frozenset, dict[str, list[str]]] = {}
    for query in judged:
        by_language = alike.setdefault(frozenset(qrels[query].items()), {})
        by_language.setdefault(language_of[query], []).append(query)
    place = {query: index for index, query in enumerate(judged)}
    base = {}
    for by_language in alike.values():
        for group in _groups(list(by_language.values())):
            first = min(group, key=place.__getitem__)
            base.update(dict.fromkeys(group, first))
    return {query: base[query] for query in judged}


def _groups(of_each_language: Sequence[Sequence[str]]) -> list[list[str]]:
    if len({len(queries) for queries in of_each_language}) == 1:
        return [list(group) for group in zip(*of_each_language, strict=True)]
    return [[query for queries in of_each_language for query in queries]]
