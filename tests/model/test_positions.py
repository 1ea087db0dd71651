from dataclasses import replace

import pytest
import torch
from transformers import Qwen2VLModel

from coltrain.model.positions import page_positions, text_positions
from coltrain.model.tiny.architecture import tiny_config


@pytest.fixture(scope="module")
def rope_index():
    """transformers' own positions of padded pages."""
    model = Qwen2VLModel(tiny_config())

    def positions(inputs):
        positions, _ = model.get_rope_index(
            inputs.input_ids,
            mm_token_type_ids=(inputs.input_ids == model.config.image_token_id).int(),
            image_grid_thw=inputs.grid_thw,
            attention_mask=inputs.mask.int(),
        )
        return positions

    return positions


def test_positions_of_uneven_pages_equal_those_of_transformers(
    tiny_retriever, page_inputs, rope_index
):
    inputs = page_inputs(tiny_retriever.built)
    expected = rope_index(inputs)
    assert len({tuple(row.tolist()) for row in inputs.grid_thw}) == 5
    assert not inputs.mask.all()
    for sample, mask in enumerate(inputs.mask):
        torch.testing.assert_close(inputs.position_ids[:, sample, mask], expected[:, sample, mask])


@pytest.mark.parametrize("grid", [(2, 3), (3, 2), (1, 7), (7, 1), (5, 5)])
def test_positions_of_any_grid_equal_those_of_transformers(tiny_retriever, rope_index, grid):
    height, width = grid
    preparer = tiny_retriever.built.preparer
    ids = preparer.page_ids(height * width)
    start = ids.index(preparer.image_token_id)
    positions = page_positions(start, height, width, len(ids) - start - height * width)

    class Alone:
        input_ids = torch.tensor([ids])
        mask = torch.ones(1, len(ids), dtype=torch.bool)
        grid_thw = torch.tensor([[1, 2 * height, 2 * width]])

    torch.testing.assert_close(positions, rope_index(Alone)[:, 0])


def test_a_page_of_two_rows_and_three_columns_by_hand():
    time, height, width = page_positions(2, 2, 3, 2).tolist()
    assert time == [0, 1, 2, 2, 2, 2, 2, 2, 5, 6]
    assert height == [0, 1, 2, 2, 2, 3, 3, 3, 5, 6]
    assert width == [0, 1, 2, 3, 4, 2, 3, 4, 5, 6]


def test_positions_of_text_count_up_on_every_axis():
    assert text_positions(4).tolist() == [[0, 1, 2, 3]] * 3


def test_sequential_positions_are_what_transformers_takes_without_a_grid(
    tiny_retriever, page_inputs
):
    """The text tower numbers tokens 0, 1, 2, … where it is handed no positions."""
    built = tiny_retriever.built
    preparer = built.preparer.using(positions="sequential")
    inputs = page_inputs(replace(built, preparer=preparer), 1)
    assert inputs.position_ids[:, 0].tolist() == [list(range(inputs.input_ids.shape[1]))] * 3
    tower = built.model.language_model
    with torch.no_grad():
        embeddings = tower.embed_tokens(inputs.input_ids)
        given = tower(inputs_embeds=embeddings, position_ids=inputs.position_ids)
        left_out = tower(inputs_embeds=embeddings)
        mrope = tower(
            inputs_embeds=embeddings, position_ids=page_inputs(built, 1).position_ids
        ).last_hidden_state
    assert torch.equal(given.last_hidden_state, left_out.last_hidden_state)
    assert (given.last_hidden_state - mrope).abs().max() > 0.01


def test_queries_have_the_same_positions_under_both_schemes(tiny_retriever, uneven_queries):
    preparer = tiny_retriever.built.preparer
    sequential = preparer.using(positions="sequential")
    found = [p.collate_queries(uneven_queries).position_ids for p in (preparer, sequential)]
    assert torch.equal(*found)
