"""Explanations: they add up to the score, and point at the word that was asked for."""

import json
import math

import pytest
import torch
from small_pages import small_page

from coltrain.data.drawn.page import CELL, draw
from coltrain.data.drawn.windows import drawn_pages
from coltrain.evaluation.explanation import explain
from coltrain.evaluation.rank import score_all
from coltrain.model.retriever import load
from coltrain.recipe import load_recipe
from coltrain.training.loop import Training


@pytest.mark.parametrize("number", range(3))
def test_the_contributions_add_up_to_the_score(tiny_retriever, number):
    image, text = small_page(number), "red glass"
    found = explain(tiny_retriever, text, image)
    queries, pages = tiny_retriever.encode_queries([text]), tiny_retriever.encode_pages([image])
    assert found.score == score_all(queries, pages).item()
    assert sum(match.contribution for match in found.matches) == pytest.approx(found.score)
    assert len(found.matches) == len(queries[0])
    known = explain(tiny_retriever, text, image, queries[0], pages[0])
    assert known.matches == found.matches


def test_rows_and_columns_are_those_of_the_page(tiny_retriever):
    shapes = []
    for number in range(3):  # 2 x 2, 3 columns x 2 rows, 3 x 3 patches as drawn
        image = small_page(number)
        found = explain(tiny_retriever, "red", image)
        shapes.append((found.rows, found.columns))
        assert found.similarities.shape == (len(found.matches), found.rows, found.columns)
        for place, match in enumerate(found.matches):
            best = found.similarities[place].max()
            assert found.similarities[place, match.row, match.column] == best
            assert match.similarity == best.item()
            if match.won_by is None:
                assert match.contribution == match.similarity
            else:
                assert match.contribution > match.similarity
    assert shapes[1][0] < shapes[1][1]  # wider than high, so rows and columns cannot be swapped
    assert shapes[0][0] == shapes[0][1]


def test_words_are_told_from_the_template(tiny_retriever):
    found = explain(tiny_retriever, "red glass", small_page(0))
    words = "".join(match.token for match in found.matches if match.is_word)
    assert words.replace(" ", "") == "redglass"
    others = [match for match in found.matches if not match.is_word]
    template = tiny_retriever.built.preparer.template
    assert len(others) >= template.query_suffix.count("<")
    assert found.matches[-1].token == "<|endoftext|>"


def test_what_patches_won_is_the_score_without_the_prompt(tiny_retriever):
    found = explain(tiny_retriever, "iron water stone", small_page(2))
    from_patches = sum(m.contribution for m in found.matches if m.won_by is None)
    assert found.won().sum().item() == pytest.approx(from_patches, abs=1e-5)


def test_the_document_is_json(tiny_retriever):
    found = explain(tiny_retriever, "red", small_page(1))
    document = json.loads(json.dumps(found.to_json()))
    assert document["rows"] == found.rows
    assert len(document["tokens"]) == len(found.matches)
    assert torch.tensor(document["tokens"][0]["similarities"]).shape == (found.rows, found.columns)


def share_of_words_found(retriever, num_pages):
    """How often the patch most alike to a word, asked for alone, is one that the word covers."""
    found, asked, covered = 0, 0, 0
    for page in drawn_pages("test")[:num_pages]:
        image = draw(list(page.words)).convert("RGB")
        for word in page.query.split():
            places = {
                (one.line, column)
                for one in page.words
                if one.text == word
                for column in range(one.left // CELL, math.ceil((one.left + one.width) / CELL))
            }
            if not places:
                continue  # drawn with a capital, or beside a comma
            explanation = explain(retriever, word, image)
            heat = sum(
                explanation.similarities[place]
                for place, match in enumerate(explanation.matches)
                if match.is_word
            )
            best = int(heat.argmax())
            found += (best // explanation.columns, best % explanation.columns) in places
            asked += 1
            covered += len(places) / explanation.rows / explanation.columns
    assert asked > 2 * num_pages
    assert covered / asked < 0.1  # a patch at random would hardly ever be right
    return found / asked


def test_the_map_of_a_known_word_falls_on_the_word(tiny_retriever):
    assert share_of_words_found(tiny_retriever, 12) >= 0.75  # 0.90 of 91 words on 40 pages


@pytest.mark.reference
def test_after_training_the_map_of_a_known_word_falls_on_the_word(tmp_path):
    recipe = load_recipe("tiny", ["eval.data=[]"])
    for _ in Training(recipe, tmp_path / "run", torch.device("cpu")).events():
        pass
    assert share_of_words_found(load(tmp_path / "run"), 40) >= 0.85  # 0.93 of 91 words
