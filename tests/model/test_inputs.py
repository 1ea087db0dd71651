"""Templates, ids, visual tokens and pixels."""

import copy
import itertools
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from coltrain.errors import DataError, ModelError
from coltrain.model.build import load_preparer
from coltrain.model.inputs import Preparer
from coltrain.model.tiny.architecture import tiny_image_processor, tiny_tokenizer
from coltrain.recipe import Template, template_named

NEWEST = "engine-0.3.13"
V1 = "engine-0.3.12"
V0_1 = "engine-0.3.3"
# preprocessor_config.json of Qwen/Qwen2-VL-2B-Instruct.
RELEASED_PREPROCESSOR = {
    "min_pixels": 3136,
    "max_pixels": 12845056,
    "patch_size": 14,
    "temporal_patch_size": 2,
    "merge_size": 2,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "image_processor_type": "Qwen2VLImageProcessor",
    "processor_class": "Qwen2VLProcessor",
}


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_tokenizer()


@pytest.fixture
def prepare(tokenizer):
    """Makes a preparer."""

    def make(template=V1, budget=768):
        return Preparer(tokenizer, tiny_image_processor(), template_named(template), budget)

    return make


def gray(width, height):
    return Image.new("L", (width, height), 200)


def num_visual_tokens(preparer, width, height):
    page = preparer.prepare_page(gray(width, height))
    assert page.pixel_values.shape == (page.grid_height * page.grid_width, 1176)
    assert page.grid_height % 2 == page.grid_width % 2 == 0
    return page.grid_height * page.grid_width // 4


@pytest.mark.parametrize("template", [V0_1, V1])
def test_a_query_is_prefix_text_and_ten_suffix_tokens_once(prepare, tokenizer, template):
    preparer = prepare(template)
    ids = preparer.query_ids("iron and glass")
    assert tokenizer.decode(ids) == "query: iron and glass" + "<|endoftext|>" * 10
    assert ids[-10:] == [0] * 10
    assert ids.count(0) == 10
    text = tokenizer("Query: iron and glass", add_special_tokens=False)["input_ids"]
    assert ids == text + [0] * 10


def test_the_newest_template_has_no_prefix(prepare, tokenizer):
    ids = prepare(NEWEST).query_ids("iron and glass")
    assert tokenizer.decode(ids) == "iron and glass" + "<|endoftext|>" * 10


def test_a_query_is_kept_as_typed(prepare, tokenizer):
    ids = prepare().query_ids("  two\nlines  ")
    assert tokenizer.decode(ids[:-10]) == "query:   two\nlines  "


def test_an_empty_query_is_prefix_and_suffix(prepare, tokenizer):
    assert tokenizer.decode(prepare().query_ids("")) == "query: " + "<|endoftext|>" * 10


@pytest.mark.parametrize(
    ("template", "end"), [(V0_1, "<|im_end|>\n"), (V1, "<|im_end|><|endoftext|>")]
)
def test_a_page_is_the_prompt_with_as_many_placeholders(prepare, tokenizer, template, end):
    expected = (
        "<|im_start|>user\n<|vision_start|>"
        + "<|image_pad|>" * 6
        + "<|vision_end|>describe the image."
        + end
    )
    assert tokenizer.decode(prepare(template).page_ids(6)) == expected


def test_prompt_around_the_placeholder_is_tokenized_as_the_whole_prompt_is(prepare, tokenizer):
    for template in (V0_1, V1, NEWEST):
        whole = template_named(template).page_prompt.replace("<|image_pad|>", "<|image_pad|>" * 6)
        ids = tokenizer(whole, add_special_tokens=False)["input_ids"]
        assert prepare(template).page_ids(6) == ids


def test_special_tokens_in_a_query_are_special_tokens(prepare, tokenizer):
    # Text is tokenized as it is, as in colpali-engine. A placeholder stays one, and no visual token
    # is looked for, since a query has none. (The engine cannot take such a query at all.)
    preparer = prepare()
    ids = preparer.query_ids("where is <|image_pad|> or <|endoftext|>")
    assert ids.count(preparer.image_token_id) == 1
    assert ids.count(0) == 11


@pytest.mark.parametrize(
    ("size", "at_768", "at_1024"),
    [
        ((850, 1100), 744, 1008),
        ((1700, 2200), 744, 1008),
        ((2550, 3300), 744, 1008),
        ((1654, 2339), 736, 988),
    ],
)
def test_pages_get_the_visual_tokens_of_the_published_models(prepare, size, at_768, at_1024):
    assert num_visual_tokens(prepare(budget=768), *size) == at_768
    assert num_visual_tokens(prepare(budget=1024), *size) == at_1024


def test_the_released_preprocessor_file_gives_the_same_visual_tokens(tmp_path, write_base):
    folder = write_base()
    (folder / "preprocessor_config.json").write_text(json.dumps(RELEASED_PREPROCESSOR))
    preparer = load_preparer(folder, template_named(V1), 768)
    assert num_visual_tokens(preparer, 1654, 2339) == 736
    page = preparer.prepare_page(Image.new("RGB", (56, 56), (255, 255, 255)))
    white = (1 - torch.tensor(RELEASED_PREPROCESSOR["image_mean"])) / torch.tensor(
        RELEASED_PREPROCESSOR["image_std"]
    )
    # A patch holds its channels one after the other: two frames of 14 x 14 each.
    expected = white.repeat_interleave(2 * 14 * 14).expand(16, -1)
    torch.testing.assert_close(page.pixel_values, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("budget", [8, 16, 64, 100])
def test_the_budget_is_respected_for_odd_pages(prepare, budget):
    preparer = prepare(budget=budget)
    sides = (1, 3, 27, 28, 29, 97, 211, 640)
    for width, height in itertools.product(sides, sides):
        if max(width, height) / min(width, height) <= min(budget, 200):
            assert 1 <= num_visual_tokens(preparer, width, height) <= budget, (width, height)


def test_only_a_page_narrower_than_the_budget_says_exceeds_it(prepare):
    # The resize keeps at least one visual token across: as in colpali-engine.
    assert num_visual_tokens(prepare(budget=64), 5900, 30) == 112
    assert num_visual_tokens(prepare(budget=200), 5900, 30) <= 200


def test_a_page_that_is_too_narrow_is_refused(prepare):
    with pytest.raises(DataError) as caught:
        prepare().prepare_page(gray(6000, 20))
    assert str(caught.value) == (
        "DataError [page-cannot-be-resized]: the image processor cannot take this page.\n"
        "  received  6000 x 20 pixels: absolute aspect ratio must be smaller than 200, got 300.0\n"
        "  expected  at most 200 times as long as wide"
    )


def pixels_of(preparer, image):
    return preparer.prepare_page(image).pixel_values


def test_pages_of_every_mode_are_read_as_their_colours(prepare):
    preparer = prepare()
    noise = np.random.default_rng(0).integers(0, 256, (84, 112, 3), np.uint8)
    rgb = Image.fromarray(noise)
    transparent = rgb.convert("RGBA")
    transparent.putalpha(0)
    torch.testing.assert_close(pixels_of(preparer, transparent), pixels_of(preparer, rgb))
    gray_page = rgb.convert("L")
    as_rgb = pixels_of(preparer, gray_page.convert("RGB"))
    torch.testing.assert_close(pixels_of(preparer, gray_page), as_rgb)
    palette = rgb.quantize(16)
    torch.testing.assert_close(
        pixels_of(preparer, palette), pixels_of(preparer, palette.convert("RGB"))
    )
    bilevel = rgb.convert("1")
    torch.testing.assert_close(
        pixels_of(preparer, bilevel), pixels_of(preparer, bilevel.convert("RGB"))
    )
    assert not torch.equal(pixels_of(preparer, rgb), as_rgb)  # the case can tell


@pytest.mark.parametrize("size", [(1, 1), (3, 3), (1, 100), (100, 3), (3, 200)])
def test_a_page_of_few_pixels_keeps_its_orientation(prepare, size):
    # Its array could be mistaken for one with the channels first.
    page = prepare().prepare_page(Image.new("RGB", size, "white"))
    width, height = size
    assert (page.grid_width > page.grid_height) == (width > height)
    assert (page.grid_width == page.grid_height) == (width == height)


def test_pixels_are_cut_in_the_order_of_the_grid(prepare):
    # One white square of 28 pixels in a black page of 3 x 2: its four patches lie together.
    image = Image.new("L", (84, 56), 0)
    image.paste(255, (28, 28, 56, 56))
    page = prepare().prepare_page(image)
    is_white = page.pixel_values.mean(-1) > 0
    assert is_white.nonzero().flatten().tolist() == [16, 17, 18, 19]


def test_collated_pages_have_flat_pixels_and_padding_on_the_right(tiny_retriever, uneven_pages):
    preparer = tiny_retriever.built.preparer
    pages = [preparer.prepare_page(page) for page in uneven_pages]
    inputs = preparer.collate_pages(pages)
    assert inputs.pixel_values.shape == (sum(len(page.pixel_values) for page in pages), 1176)
    assert inputs.grid_thw.tolist() == [[1, p.grid_height, p.grid_width] for p in pages]
    for number, page in enumerate(pages):
        ids = preparer.page_ids(page.grid_height * page.grid_width // 4)
        mask = inputs.mask[number]
        assert mask.tolist() == [True] * len(ids) + [False] * (len(mask) - len(ids))
        assert inputs.input_ids[number, mask].tolist() == ids
        assert set(inputs.input_ids[number, ~mask].tolist()) <= {preparer.pad_token_id}


def test_collated_queries_have_no_pixels(tiny_retriever, uneven_queries):
    preparer = tiny_retriever.built.preparer
    inputs = preparer.collate_queries(uneven_queries)
    assert inputs.pixel_values is inputs.grid_thw is None
    for number, text in enumerate(uneven_queries):
        assert inputs.input_ids[number, inputs.mask[number]].tolist() == preparer.query_ids(text)


def test_inputs_move_and_forget_their_pixels(tiny_retriever, page_inputs):
    inputs = page_inputs(tiny_retriever.built, 0, 1)
    moved = inputs.to(torch.device("meta"))
    assert moved.pixel_values.is_meta
    assert moved.mask.is_meta
    light = inputs.without_pixels()
    assert light.pixel_values is light.grid_thw is None
    assert light.input_ids is inputs.input_ids


@pytest.mark.parametrize("known", [(), (1,), (0, 3)])
def test_parts_are_the_same_samples_with_their_own_pixels(
    tiny_retriever, page_inputs, uneven_pages, known
):
    preparer = tiny_retriever.built.preparer
    pages = [preparer.prepare_page(page) for page in uneven_pages]
    for number in known:  # behind the vision tower already, and without pixels here
        tokens = torch.full((pages[number].grid_height * pages[number].grid_width // 4, 8), number)
        pages[number] = replace(pages[number], pixel_values=None, visual_tokens=tokens.float())
    whole = preparer.collate_pages(pages)
    assert len(set(map(len, [p.pixel_values for p in pages if p.pixel_values is not None]))) > 1
    for start, stop in [(0, 2), (2, len(pages)), (1, 2), (3, len(pages) + 5)]:
        part, alone = whole.part(start, stop), preparer.collate_pages(pages[start:stop])
        assert torch.equal(part.mask.sum(1), alone.mask.sum(1))
        length = alone.input_ids.shape[1]
        assert torch.equal(part.input_ids[:, :length], alone.input_ids)
        assert torch.equal(part.position_ids[:, :, :length], alone.position_ids)
        assert torch.equal(part.grid_thw, alone.grid_thw)
        if alone.pixel_values is not None:
            assert torch.equal(part.pixel_values, alone.pixel_values)
        for ours, theirs in zip(part.visual_tokens or (), alone.visual_tokens or (), strict=False):
            assert (ours is None) == (theirs is None)
            assert ours is None or torch.equal(ours, theirs)


@pytest.mark.parametrize("prompt", ["Describe the page.", "<|image_pad|> and <|image_pad|>"])
def test_a_prompt_without_exactly_one_image_is_refused(tokenizer, prompt):
    template = Template(name="mine", query_prefix="", query_suffix="", page_prompt=prompt)
    with pytest.raises(ModelError) as caught:
        Preparer(tokenizer, tiny_image_processor(), template, 64)
    assert str(caught.value) == (
        "ModelError [page-prompt-without-image]: the page prompt must name the image exactly once.\n"
        "  where     template 'mine'\n"
        f"  received  {prompt!r}\n"
        "  expected  one <|image_pad|>"
    )


@pytest.mark.parametrize("lost", ["<|image_pad|>", "<|endoftext|>"])
def test_a_tokenizer_without_the_special_tokens_is_refused(write_base, lost):
    folder = write_base()
    file = folder / "tokenizer.json"
    content = json.loads(file.read_text())
    content["added_tokens"] = [t for t in content["added_tokens"] if t["content"] != lost]
    content["model"]["vocab"]["<lost>"] = content["model"]["vocab"].pop(lost)
    file.write_text(json.dumps(content))
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings["extra_special_tokens"] = []
    settings["pad_token"] = None
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    with pytest.raises(ModelError) as caught:
        load_preparer(folder, template_named(V1), 64)
    assert str(caught.value) == (
        "ModelError [tokenizer-does-not-fit]: the tokenizer is not that of a Qwen2-VL model.\n"
        f"  where     {folder}\n"
        f"  received  no token {lost}\n"
        f"  expected  {lost} as one token"
    )


def test_a_tokenizer_whose_unknown_token_is_the_padding_is_taken(tokenizer):
    # transformers' Qwen2Tokenizer has it so unless its file says otherwise.
    changed = copy.deepcopy(tokenizer)
    changed.unk_token = "<|endoftext|>"
    preparer = Preparer(changed, tiny_image_processor(), template_named(V1), 64)
    assert preparer.pad_token_id == changed.unk_token_id == 0


@pytest.mark.parametrize(
    ("lost", "expected"),
    [
        ("tokenizer.json", "tokenizer.json, tokenizer_config.json"),
        ("preprocessor_config.json", "preprocessor_config.json"),
    ],
)
def test_a_folder_without_tokenizer_or_image_processor(write_base, lost, expected):
    folder = write_base()
    (folder / lost).unlink()
    with pytest.raises(ModelError) as caught:
        load_preparer(folder, template_named(V1), 64)
    assert caught.value.code == "no-processor"
    assert caught.value.where == str(folder)
    assert caught.value.expected == f"{expected}, as transformers writes them"
    assert caught.value.suggestion == "copy them from the base, or download them again"
