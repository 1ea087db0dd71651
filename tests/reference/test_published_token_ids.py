"""Token ids with the published tokenizer: what a query and a page are under each template."""

import json

import pytest
import torch
from PIL import Image
from qwen2_tokenizer import SPECIAL_TOKENS, qwen2_tokenizer
from transformers import ColQwen2Processor, Qwen2VLImageProcessor, Qwen2VLVideoProcessor

from coltrain.model.build import load_preparer
from coltrain.model.inputs import Preparer
from coltrain.model.tiny.architecture import tiny_image_processor
from coltrain.recipe.template import REGISTERED, template_named

pytestmark = pytest.mark.reference

QUERY = "Größe of a 12-page PDF?"
TEXT = [315, 264, 220, 16, 17, 15112, 11358, 30]  # " of a 12-page PDF?"
BARE = [6464, 78940, *TEXT]  # "Größe" at the start
PREFIXED = [2859, 25, 137208, *TEXT]  # "Query", ":", " Größe"
PAGE = [151644, 872, 198, 151652, 151655, 151655, 151653, 74785, 279, 2168, 13, 151645]
# The letters <pad>, ten times: "?<", "pad", "><", "pad", …, ">".
LETTERS = [75414, 13242, *[1784, 13242] * 9, 29]
IDS = {
    "engine-0.3.3": ([*PREFIXED, *[151643] * 10], [*PAGE, 198]),
    "engine-0.3.3-inference": ([*PREFIXED[:-1], *LETTERS], [*PAGE, 198]),
    "engine-0.3.12": ([*PREFIXED, *[151643] * 10], [*PAGE, 151643]),
    "engine-0.3.13": ([*BARE, *[151643] * 10], [*PAGE, 151643]),
    "transformers-native": ([*PREFIXED, *[151643] * 10, 198], [*PAGE, 151643]),
    "mteb-2.12.15+engine-0.3.12": (
        [2859, 25, 11361, 25, 137208, *TEXT, *[151643] * 20],
        [*PAGE, 151643],
    ),
    "mteb-2.12.15+engine-0.3.13": ([*BARE, *[151643] * 20], [*PAGE, 151643]),
}


@pytest.fixture(scope="module")
def tokenizer():
    return qwen2_tokenizer()


@pytest.fixture
def prepare(tokenizer):
    def make(template):
        return Preparer(tokenizer, tiny_image_processor(), template_named(template), 768)

    return make


def test_special_tokens_have_the_published_ids(tokenizer):
    ids = {
        "<|endoftext|>": 151643,
        "<|im_start|>": 151644,
        "<|im_end|>": 151645,
        "<|vision_start|>": 151652,
        "<|vision_end|>": 151653,
        "<|image_pad|>": 151655,
        "<|video_pad|>": 151656,
    }
    assert {token: tokenizer.convert_tokens_to_ids(token) for token in ids} == ids
    assert len(tokenizer) == 151643 + len(SPECIAL_TOKENS)


@pytest.mark.parametrize("template", REGISTERED)
def test_a_query_and_a_page_are_these_ids(prepare, template):
    preparer = prepare(template)
    query, page = IDS[template]
    assert preparer.query_ids(QUERY) == query
    assert preparer.page_ids(2) == page


@pytest.mark.parametrize("unknown", [None, "<|endoftext|>"])
def test_a_folder_with_the_published_tokenizer_loads(tokenizer, tmp_path, unknown):
    """Qwen2-VL's file has no unknown token; transformers' class, left alone, takes the padding."""
    tokenizer.save_pretrained(tmp_path)
    tiny_image_processor().save_pretrained(tmp_path)
    file = tmp_path / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"unk_token": unknown}))
    preparer = load_preparer(tmp_path, template_named("engine-0.3.12"), 768)
    assert preparer.tokenizer.unk_token == unknown
    assert preparer.query_ids(QUERY) == IDS["engine-0.3.12"][0]
    assert (preparer.pad_token_id, preparer.image_token_id) == (151643, 151655)


def test_the_engine_gives_these_ids(tokenizer):
    from colpali_engine.models.qwen2.colqwen2 import ColQwen2Processor as EngineProcessor

    processor = EngineProcessor(
        image_processor=Qwen2VLImageProcessor(),
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(),
    )
    query, page = IDS["engine-0.3.13"]
    assert processor.process_queries([QUERY])["input_ids"].tolist() == [query]
    assert (
        processor.process_queries([QUERY, QUERY * 2])["input_ids"][0][-len(query) :].tolist()
        == query
    )
    # What mteb 2.0.1 to 2.12.15 does with it.
    twice = processor.query_prefix + QUERY + processor.query_augmentation_token * 10
    assert processor.process_queries([twice])["input_ids"].tolist() == [
        IDS["mteb-2.12.15+engine-0.3.13"][0]
    ]
    processor.query_prefix = "Query: "  # as it was up to 0.3.12
    assert processor.process_queries([QUERY])["input_ids"].tolist() == [IDS["engine-0.3.12"][0]]
    twice = processor.query_prefix + QUERY + processor.query_augmentation_token * 10
    assert processor.process_queries([twice])["input_ids"].tolist() == [
        IDS["mteb-2.12.15+engine-0.3.12"][0]
    ]
    image = Image.new("RGB", (56, 56))
    assert processor.process_images([image])["input_ids"].tolist() == [expanded(page, 4)]


def expanded(page, num_visual_tokens):
    """A page of two visual tokens as one of more."""
    place = page.index(151655)
    return [*page[:place], *[151655] * num_visual_tokens, *page[place + 2 :]]


def test_transformers_gives_these_ids(tokenizer):
    processor = ColQwen2Processor(image_processor=Qwen2VLImageProcessor(), tokenizer=tokenizer)
    query, page = IDS["transformers-native"]
    assert processor.process_queries([QUERY])["input_ids"].tolist() == [query]
    image = Image.new("RGB", (56, 56))
    assert processor.process_images([image])["input_ids"].tolist() == [expanded(page, 4)]


def test_positions_of_a_page_start_behind_its_four_tokens(prepare):
    preparer = prepare("engine-0.3.12")
    inputs = preparer.collate_pages([preparer.prepare_page(Image.new("RGB", (56, 84)))])
    first = inputs.input_ids[0].tolist().index(151655)
    assert first == 4
    assert inputs.position_ids[:, 0, first : first + 6].tolist() == [
        [4, 4, 4, 4, 4, 4],
        [4, 4, 5, 5, 6, 6],
        [4, 5, 4, 5, 4, 5],
    ]
    assert torch.equal(inputs.position_ids[:, 0, first + 6], torch.tensor([7, 7, 7]))
