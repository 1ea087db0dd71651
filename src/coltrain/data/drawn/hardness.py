"""What makes the drawn test a test: counted, so that nobody has to believe it."""

from dataclasses import dataclass

from coltrain.data.drawn.text import Split, grams, normalise, training_grams
from coltrain.data.drawn.windows import drawn_pages


@dataclass(frozen=True)
class Hardness:
    """Facts about a split.

    Attributes:
        num_pages: Pages, one query each.
        fewest_words: On any page.
        pages_sharing_training_text: Pages with a run of six words that training text has.
        query_lengths: Fewest and most words of a query.
        queries_on_several_pages: Queries whose words occur together on more than one page.
    """

    num_pages: int
    fewest_words: int
    pages_sharing_training_text: int
    query_lengths: tuple[int, int]
    queries_on_several_pages: int


def hardness(split: Split) -> Hardness:
    """Count over a split, from the words as drawn."""
    pages = drawn_pages(split)
    texts = [tuple(word.text for word in page.words) for page in pages]
    word_sets = [{normalise(word) for word in text} for text in texts]
    asked = [set(page.query.split()) for page in pages]
    return Hardness(
        num_pages=len(pages),
        fewest_words=min(len(text) for text in texts),
        pages_sharing_training_text=sum(
            not training_grams().isdisjoint(grams(text)) for text in texts
        ),
        query_lengths=(min(map(len, asked)), max(map(len, asked))),
        queries_on_several_pages=sum(
            sum(words <= on_page for on_page in word_sets) != 1 for words in asked
        ),
    )
