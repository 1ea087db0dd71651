import pytest

from coltrain.errors import RecipeError
from coltrain.recipe import load_recipe


def test_values_are_read_as_yaml():
    recipe = load_recipe(
        "tiny",
        [
            "data.train=[../a/b, x/y@abc]",
            "eval.data=[]",
            "eval.every=",
            "optimizer.learning_rate=5e-5",
            "optimizer.betas=[0.8, 0.9]",
            "batch.negatives=4",
            "loss.normalize=false",
            "lora={r: 8, alpha: 8, dropout: 0, init: kaiming, target_modules: q, dtype: float32}",
        ],
    )
    assert [source.path for source in recipe.data.train] == ["../a/b", "x/y"]
    assert recipe.data.train[1].revision == "abc"
    assert recipe.eval.data == ()
    assert recipe.eval.every is None
    assert recipe.optimizer.learning_rate == 5e-5
    assert recipe.optimizer.betas == (0.8, 0.9)
    assert recipe.batch.negatives == 4
    assert recipe.loss.normalize is False
    assert recipe.lora.r == 8


def test_the_last_override_of_a_key_holds():
    assert load_recipe("tiny", ["train.steps=3", "train.steps=5"]).train.steps == 5


def test_a_value_may_hold_an_equals_sign():
    assert load_recipe("tiny", ["model.base=./a=b"]).model.base == "./a=b"


def test_steps_from_the_command_line_replace_epochs_from_the_file():
    train = load_recipe("colqwen2-v0.1", ["train.steps=30"]).train
    assert (train.steps, train.epochs) == (30, None)


def test_epochs_from_the_command_line_replace_steps_from_the_file():
    train = load_recipe("tiny", ["train.epochs=2"]).train
    assert (train.steps, train.epochs) == (None, 2.0)


def test_steps_and_epochs_from_the_command_line_are_refused():
    with pytest.raises(RecipeError) as caught:
        load_recipe("tiny", ["train.steps=3", "train.epochs=2"])
    assert caught.value.code == "steps-and-epochs"
    assert caught.value.where == "tiny: train, on the command line"


def test_steps_of_null_do_not_replace_epochs():
    assert load_recipe("colqwen2-v0.1", ["train.steps=null"]).train.epochs == 1.0


def test_a_registered_template_is_replaced_by_name():
    recipe = load_recipe("tiny", ["model.template=engine-0.3.13"])
    assert recipe.model.template.query_prefix == ""


def test_one_string_of_a_template_changes_together_with_its_name():
    overrides = ["model.template.query_prefix=", "model.template.name=mine"]
    with pytest.raises(RecipeError, match="template-drift"):
        load_recipe("tiny", ["model.template.query_prefix='find: '"])
    with pytest.raises(RecipeError, match="received  null"):
        load_recipe("tiny", overrides)
    overrides[0] += "''"
    template = load_recipe("tiny", overrides).model.template
    assert (template.name, template.query_prefix) == ("mine", "")
    assert template.page_prompt == load_recipe("tiny").model.template.page_prompt


def test_sources_say_which_values_came_from_the_command_line():
    recipe = load_recipe("colqwen2-v0.1", ["train.steps=30", "lora.r=8"])
    assert recipe.sources["train.steps"] == "set on the command line"
    assert recipe.sources["train.epochs"] == "given up for train.steps, set on the command line"
    assert recipe.sources["lora.r"] == "set on the command line"
    assert recipe.sources["lora"] == load_recipe("colqwen2-v0.1").sources["lora"]


def test_sources_of_a_replaced_section_are_dropped():
    section = "{name: softmax, temperature: 0.02, normalize: true}"
    sources = load_recipe("colqwen2-v0.1", [f"loss={section}"]).sources
    assert sources["loss"] == "set on the command line"
    assert not [path for path in sources if path.startswith("loss.")]


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("train.steps", "key.path=value, such as train.steps=30"),
        ("=3", "key.path=value, such as train.steps=30"),
        ("train..steps=3", "key.path=value, such as train.steps=30"),
        ("--train.steps=3", "key.path=value, such as train.steps=30"),
        ("", "key.path=value, such as train.steps=30"),
        ("data.train=[", "a value in YAML after data.train= (while parsing a flow node"),
        ("lora={r: 1, r: 2}", "a value in YAML after lora= (a key stands more than once: r"),
        ("lora.r=" + "[" * 5000, "a value in YAML after lora.r= (it is nested too deeply)"),
    ],
)
def test_what_is_no_override_is_refused(override, expected):
    with pytest.raises(RecipeError) as caught:
        load_recipe("tiny", [override])
    assert caught.value.code == "bad-override"
    assert caught.value.where == "the command line"
    assert caught.value.received == (override or "an empty text")
    assert caught.value.expected.startswith(expected)


def test_a_key_below_a_value_is_refused():
    with pytest.raises(RecipeError) as caught:
        load_recipe("tiny", ["data.train.0=./pages"])
    assert str(caught.value) == (
        "RecipeError [unknown-key]: data.train.0 is not a key of a recipe.\n"
        "  where     tiny: data.train.0, on the command line\n"
        "  received  data.train.0\n"
        "  expected  data.train as a whole, which has no keys below it\n"
        "  try       data.train"
    )


def test_an_unknown_key_reads_well():
    with pytest.raises(RecipeError) as caught:
        load_recipe("tiny", ["lora.dropot=0.2"])
    assert str(caught.value) == (
        "RecipeError [unknown-key]: lora.dropot is not a key of a recipe.\n"
        "  where     tiny: lora.dropot, on the command line\n"
        "  received  lora.dropot = 0.2\n"
        "  expected  one of r, alpha, dropout, init, target_modules, dtype\n"
        "  try       lora.dropout"
    )


@pytest.mark.parametrize(
    ("key", "near"),
    [
        ("steps", "train.steps"),
        ("lr", "optimizer.learning_rate"),
        ("optimiser.lr", "optimizer.learning_rate"),
        ("optimiser.eps", "optimizer.eps"),
        ("optimizer.learningrate", "optimizer.learning_rate"),
        ("train.learning_rate", "optimizer.learning_rate"),
        ("batch.size", "batch.global_size"),
        ("per_device_train_batch_size", "batch.chunk_size"),
        ("lora.lora_alpha", "lora.alpha"),
        ("eval.steps", "eval.every"),
        ("model.templte", "model.template"),
        ("model.template.prefix", "model.template.query_prefix"),
        ("LORA.R", "lora.r"),
        ("qqq.www", None),
    ],
)
def test_an_unknown_key_names_the_nearest_known_one(key, near):
    with pytest.raises(RecipeError) as caught:
        load_recipe("tiny", [f"{key}=1"])
    assert caught.value.code == "unknown-key"
    assert caught.value.suggestion == near


def test_accumulation_points_to_chunks():
    with pytest.raises(RecipeError) as caught:
        load_recipe("tiny", ["train.gradient_accumulation_steps=4"])
    assert caught.value.suggestion == (
        "batch.chunk_size: chunks keep every negative of the global batch, accumulation does not"
    )
