"""Of the sixth batch: recipes, runs and model folders of coltrain, edited."""

from pathlib import Path

from planted_making import (
    Planted,
    edit_json,
    edit_lines,
    edit_tensors,
    model,
    put,
    recipe,
    run,
)


def blank_prompt(folder: Path) -> None:
    file = folder / "chat_template.jinja"
    file.write_text(file.read_text().replace("Query: ", ""))


def losses_that_break(line: dict, place: int) -> None:
    if place > 8:
        line.update(loss=float("nan"), grad_norm=float("nan"))


RUNS = (
    Planted("sixth, R-recipe-constant", 10, recipe("optimizer.schedule=constant")),
    Planted("sixth, R-recipe-clip", 10, recipe("optimizer.max_grad_norm=0.01", rename="mine")),
    Planted("sixth, R-recipe-2.5", 2, recipe("model.base=vidore/colqwen2.5-base")),
    Planted(
        "sixth, R-recipe-two", 6, recipe("batch.global_size=2", base="colqwen2-v0.1", rename="mine")
    ),
    Planted("sixth, R-recipe-symmetric", 10, recipe("loss.symmetric=true")),
    Planted(
        "sixth, R-recipe-sound",
        None,
        recipe(
            "train.seed=7",
            "batch.chunk_size=1",
            "data.num_workers=3",
            "checkpoint.every=50",
            "model.activation_checkpointing=true",
            "logging.every=1",
        ),
    ),
    Planted(
        "sixth, R-recipe-sound-own",
        None,
        recipe("data.train=[acme/invoices]", "eval.data=[acme/invoices:test]", rename="invoices"),
    ),
    Planted(
        "sixth, R-run-no-adapter",
        1,
        run(lambda folder: (folder / "model" / "adapter_model.safetensors").unlink()),
    ),
    Planted(
        "sixth, R-run-right",
        25,
        run(edit_json("model/tokenizer_config.json", lambda c: c.update(padding_side="right"))),
    ),
    Planted("sixth, R-run-nan", 15, run(edit_lines(losses_that_break))),
    Planted(
        "sixth, R-run-suffix",
        5,
        run(edit_json("model/coltrain.json", put("template/query_suffix", ""))),
    ),
    Planted(
        "sixth, R-run-peft", 14, run(edit_json("run.json", put("versions/transformers", "4.51.3")))
    ),
    Planted("sixth, R-run-sound", None, run()),
    Planted(
        "sixth, R-run-sound-skip",
        None,
        run(edit_lines(lambda line, place: line.update(grad_norm=9.0) if place == 0 else None)),
    ),
    Planted("sixth, R-st-prefix", 4, model("sentence-transformers", blank_prompt)),
    Planted(
        "sixth, R-model-projection-zero",
        3,
        model(
            "transformers",
            edit_tensors(
                "model.safetensors",
                lambda t: [t[k].zero_() for k in t if "proj_layer" in k] and None,
            ),
        ),
    ),
)
