"""Trainings with one planted trap each, and sound ones: what the doctor is measured on.

Each variant writes a target into a folder and says which trap it holds, or none. Forms differ on
purpose: YAML or Python, by name or by place, through variables, files, the environment or the launch.
`python -m pytest tests/reproduction/test_planted.py -s` prints the table.
"""

import json

from foreign_trainings import SENTENCE_SCRIPT, TARGETS, write
from planted_forms import FORMS, RUNS
from planted_further import FURTHER, LATER, WITH_RUNS
from planted_making import (
    ADAPTER,
    CACHED,
    FOUR,
    HF,
    IMPORT_CACHED,
    IMPORT_SAMPLER,
    OLD_PINS,
    PINS,
    PREFIXED,
    PYLATE,
    SAMPLER,
    V01,
    Planted,
    adapter_only,
    drop_layer,
    edit_json,
    edit_lines,
    edit_tensors,
    helped,
    layout,
    model,
    put,
    recipe,
    rename,
    run,
    script,
    shipped,
    stuck_at_ln_2,
    their_folder,
    trainer_state,
    yaml_file,
    zero_b,
)

from coltrain.recipe import shipped_names

PLANTED = (
    # Recipes of ours
    Planted("recipe, groups of two", 6, recipe("batch.negatives=2", base="colqwen2-v0.1")),
    Planted("recipe, tiny in groups", 6, recipe("batch.negatives=4", base="tiny", rename="mine")),
    Planted("recipe, divided pairwise", 9, recipe("loss.normalize=true")),
    Planted("recipe, another template", 4, recipe("model.template=engine-0.3.13")),
    Planted("recipe, letters for tokens", 5, recipe("model.template=engine-0.3.3-inference")),
    Planted("recipe, doubled template", 5, recipe("model.template=mteb-2.12.15+engine-0.3.12")),
    Planted("recipe, today's rate", 10, recipe("optimizer.learning_rate=2e-4")),
    Planted("recipe, 1024 tokens", 10, recipe("model.max_visual_tokens=1024", rename="again")),
    Planted("recipe, hard negatives", 11, recipe("loss.name=pairwise_hard_negatives")),
    Planted("recipe, detailed data", 12, recipe("data.train=[colpali_train_set_detailed]")),
    Planted(
        "recipe, trains on test",
        12,
        recipe("data.train=[{path: vidore/colpali_train_set, split: test}]", rename="mine"),
    ),
    Planted("recipe, zero padding", 18, recipe("loss.padding=zero")),
    Planted(
        "recipe, misses projection",
        27,
        recipe(
            "lora.target_modules=(.*(model).*(down_proj|gate_proj|up_proj|k_proj|q_proj|v_proj|o_proj).*$)"
        ),
    ),
    Planted("recipe, everything adapted", 27, recipe("lora.target_modules=.*(proj|fc1|fc2|qkv).*")),
    Planted("recipe, base without projection", 3, recipe("model.base=Qwen/Qwen2-VL-2B-Instruct")),
    Planted(
        "recipe, half weights",
        15,
        recipe("model.dtype=float16", "lora.dtype=float32", rename="v100 mine"),
    ),
    Planted(
        "recipe, adapter in bfloat16",
        16,
        recipe("lora.dtype=bfloat16", base="colqwen2-v100", rename="mine"),
    ),
    Planted(
        "recipe, rate that collapses",
        8,
        recipe("optimizer.learning_rate=5e-2", base="tiny", rename="mine"),
    ),
    # Runs of ours
    Planted("run, ln 2 throughout", 8, run(stuck_at_ln_2)),
    Planted("run, ln N throughout", 8, run(edit_lines(lambda line, _: line.update(loss=2.0794)))),
    Planted(
        "run, few candidates",
        6,
        run(edit_lines(lambda line, _: line.update(candidates_per_query=2.0))),
    ),
    Planted(
        "run, steps not finite",
        15,
        run(
            edit_lines(lambda line, n: line.update(grad_norm=float("nan")) if n % 3 == 0 else None)
        ),
    ),
    Planted("run, zeroed adapter", 1, run(edit_tensors("model/adapter_model.safetensors", zero_b))),
    Planted(
        "run, other card template",
        4,
        run(edit_json("model/coltrain.json", put("template/query_prefix", ""))),
    ),
    Planted(
        "run, other data hash", 12, run(edit_json("run.json", put("data/train/0/hash", "0" * 64)))
    ),
    Planted("run, other rows", 12, run(edit_json("run.json", put("data/train/0/rows", 12)))),
    Planted(
        "run, other tokens counted", 21, run(edit_json("run.json", put("probe/visual_tokens", 160)))
    ),
    Planted(
        "run, vision adapted",
        27,
        run(edit_json("run.json", put("parameters/lora_modules_in_vision_tower", 8))),
    ),
    Planted(
        "run, other alpha", 10, run(edit_json("model/adapter_config.json", put("lora_alpha", 16)))
    ),
    Planted(
        "run, other versions",
        14,
        run(edit_json("run.json", put("versions/transformers", "4.46.0"))),
    ),
    Planted(
        "run, other projection",
        3,
        run(edit_json("model/coltrain.json", put("projection_hash", "abc"))),
    ),
    Planted(
        "run, collapsed",
        8,
        run(
            edit_json(
                "run.json",
                lambda c: c.update(
                    embeddings={
                        "tiny:test": {
                            "num_pages": 240,
                            "variance": 1e-7,
                            "effective_rank": 1.1,
                            "same_nearest": 0.9,
                        }
                    }
                ),
            )
        ),
    ),
    Planted(
        "run, adapter dtype",
        16,
        run(edit_json("run.json", put("parameters/by_dtype/trainable", {"bfloat16": 139264}))),
    ),
    # Models
    Planted(
        "model, adapter zeroed",
        1,
        model("colpali-engine", edit_tensors("adapter_model.safetensors", zero_b), card=False),
    ),
    Planted(
        "model, a module missing",
        1,
        model("colpali-engine", edit_tensors("adapter_model.safetensors", drop_layer), card=False),
    ),
    Planted(
        "model, keys of nobody",
        1,
        model(
            "colpali-engine",
            edit_tensors("adapter_model.safetensors", rename("language_model", "decoder")),
            card=False,
        ),
    ),
    Planted(
        "model, adapter file gone",
        1,
        model("coltrain", lambda f: (f / "adapter_model.safetensors").unlink()),
    ),
    Planted(
        "model, wrong base",
        2,
        model("coltrain", edit_json("coltrain.json", put("base_weights_hash", "0" * 16))),
    ),
    Planted(
        "model, norm of ones",
        2,
        layout(
            "colqwen2",
            edit_tensors("model.safetensors", lambda t: t["language_model.norm.weight"].fill_(1.0)),
        ),
    ),
    Planted(
        "model, no projection",
        3,
        layout(
            "colqwen2",
            edit_tensors(
                "model.safetensors",
                lambda t: {k: v for k, v in t.items() if "custom_text_proj" not in k},
            ),
        ),
    ),
    Planted(
        "model, native without projection",
        3,
        layout(
            "native-5",
            edit_tensors(
                "model.safetensors",
                lambda t: {k: v for k, v in t.items() if "embedding_proj" not in k},
            ),
        ),
    ),
    Planted(
        "model, projection file redrawn",
        3,
        model(
            "coltrain",
            edit_tensors(
                "projection.safetensors", lambda t: t["custom_text_proj.weight"].normal_()
            ),
        ),
    ),
    Planted(
        "model, instruct base", 3, adapter_only(base_model_name_or_path="Qwen/Qwen2-VL-2B-Instruct")
    ),
    Planted(
        "model, right padding",
        25,
        model("colpali-engine", edit_json("tokenizer_config.json", put("padding_side", "right"))),
    ),
    Planted(
        "model, registered name drifted",
        4,
        model(
            "coltrain",
            edit_json(
                "coltrain.json",
                put("template/page_prompt", "<|vision_start|><|image_pad|><|vision_end|>"),
            ),
        ),
    ),
    Planted(
        "model, five augmentation tokens",
        5,
        model(
            "coltrain",
            edit_json(
                "coltrain.json",
                lambda c: c.update(
                    template=c["template"] | {"name": "mine", "query_suffix": "<|endoftext|>" * 5}
                ),
            ),
        ),
    ),
    Planted(
        "model, two budgets",
        21,
        model("colpali-engine", edit_json("preprocessor_config.json", put("max_pixels", 12845056))),
    ),
    Planted(
        "model, hub adapter, large budget",
        21,
        lambda folder, made: (
            path := adapter_only()(folder, made),
            edit_json(
                "preprocessor_config.json",
                put("size", {"longest_edge": 12845056, "shortest_edge": 3136}),
            )(path),
        )[0],
    ),
    Planted("model, list of targets", 27, adapter_only(target_modules=["q_proj", "v_proj"])),
    Planted("model, alpha a tenth", 10, adapter_only(lora_alpha=3)),
    Planted(
        "model, mixed types",
        17,
        model(
            "colpali-engine",
            edit_tensors(
                "adapter_model.safetensors",
                lambda t: {k: v.bfloat16() if "lora_A" in k else v for k, v in t.items()},
            ),
            card=False,
        ),
    ),
    # colpali-engine, YAML
    Planted(
        "yaml, torchrun before 0.3.11",
        6,
        yaml_file(
            arguments=V01,
            more={"run.sh": "torchrun --nproc_per_node 8 train_colbert.py train.yaml\n"},
        ),
    ),
    Planted(
        "yaml, sixteen ranks by slurm",
        6,
        yaml_file(
            "training_config.yml",
            arguments=V01.replace("size: 4", "size: 2"),
            more={
                "job.slurm": "#SBATCH --nodes=2\n#SBATCH --ntasks-per-node=8\nsrun python train_colbert.py training_config.yml\n"
            },
        ),
    ),
    Planted(
        "yaml, ranks from the steps",
        6,
        yaml_file(
            "training_config.yml",
            arguments=V01,
            data="load_train_set",
            more={
                "trainer_state.json": trainer_state(
                    [0.5, 0.4, 0.3], max_steps=3694, num_train_epochs=1, train_batch_size=4
                )
            },
        ),
    ),
    Planted(
        "yaml, accumulation",
        7,
        yaml_file(
            arguments="num_train_epochs: 5\n    per_device_train_batch_size: 32\n    gradient_accumulation_steps: 8\n"
            "    warmup_steps: 100\n    learning_rate: 5e-4"
        ),
    ),
    Planted(
        "yaml, new engine divides", 9, yaml_file(era="new", tokens="max_num_visual_tokens: 768")
    ),
    Planted(
        "yaml, hard negatives",
        11,
        yaml_file(loss="ColbertPairwiseNegativeCELoss", data="load_train_set_ir_negs"),
    ),
    Planted("yaml, half weights", 15, yaml_file(dtype="torch.float16")),
    Planted("yaml, instruct base", 3, yaml_file(base="Qwen/Qwen2-VL-2B-Instruct")),
    Planted(
        "yaml, lr of today",
        10,
        yaml_file(
            arguments="num_train_epochs: 5\n    per_device_train_batch_size: 64\n    warmup_steps: 100\n    learning_rate: 2e-4"
        ),
    ),
    Planted("yaml, detailed mixture", 12, yaml_file(data="load_train_set_detailed")),
    Planted(
        "yaml, language_model in the old layout",
        27,
        yaml_file(targets=TARGETS.replace("(model)", "(language_model)")),
    ),
    Planted(
        "yaml, smooth maximum",
        18,
        yaml_file(
            era="new",
            tokens="max_num_visual_tokens: 768",
            loss_lines="normalize_scores: false\n    use_smooth_max: true",
        ),
    ),
    # colpali-engine, Python
    Planted(
        "script, removed argument",
        23,
        script(
            ("output_dir=None,", "output_dir=None, overwrite_output_dir=True,"),
            PREFIXED,
            more={"requirements.txt": PINS, "run.sh": FOUR},
        ),
    ),
    Planted(
        "script, accumulation by a variable",
        7,
        script(
            ("PER_DEVICE = 64", "PER_DEVICE = 16\nGLOBAL = 256"),
            (
                "warmup_steps=100,",
                "warmup_steps=100,\n            gradient_accumulation_steps=GLOBAL // PER_DEVICE,",
            ),
        ),
    ),
    Planted(
        "script, accumulation by the environment",
        7,
        script(
            (
                "warmup_steps=100,",
                "warmup_steps=100,\n            gradient_accumulation_steps=int(os.environ['ACC']),",
            ),
            more={"run.sh": "export ACC=4\naccelerate launch --num_processes 4 train.py --peft\n"},
        ),
    ),
    Planted(
        "script, divided by place",
        9,
        script(
            ("ColbertPairwiseCELoss(normalize_scores=False)", "ColbertPairwiseCELoss(1.0, True)")
        ),
    ),
    Planted(
        "script, divided by default",
        9,
        script(("ColbertPairwiseCELoss(normalize_scores=False)", "ColbertPairwiseCELoss()")),
    ),
    Planted(
        "script, lr by the launch",
        10,
        script(more={"run.sh": "accelerate launch --num_processes 4 train.py --lr 1e-5 --peft\n"}),
    ),
    Planted(
        "script, engine without prefix", 4, script(more={"requirements.txt": PINS, "run.sh": FOUR})
    ),
    Planted(
        "script, model.half()",
        15,
        script(("    processor = ", "    model = model.half()\n    processor = ")),
    ),
    Planted(
        "script, cast to bfloat16",
        25,
        script(
            ("torch_dtype=torch.bfloat16, use_cache=False)", "use_cache=False).to(torch.bfloat16)")
        ),
    ),
    Planted(
        "script, all-linear",
        27,
        script((f'target_modules="{TARGETS}"', 'target_modules="all-linear"')),
    ),
    Planted(
        "script, visual regex",
        27,
        script((f'target_modules="{TARGETS}"', 'target_modules=".*(proj|fc1|fc2|qkv).*"')),
    ),
    Planted(
        "script, flash attention on V100",
        28,
        script(
            ("use_cache=False", "use_cache=False, attn_implementation='flash_attention_2'"),
            more={
                "job.sbatch": "#SBATCH --gres=gpu:v100:4\naccelerate launch --num_processes 4 train.py --peft\n"
            },
        ),
    ),
    Planted(
        "script, gloo",
        26,
        script(
            ("warmup_steps=100,", "warmup_steps=100,\n            ddp_backend='gloo',"),
            more={"run.sh": FOUR},
        ),
    ),
    Planted(
        "script, raw evaluation set",
        24,
        script(
            (
                'ColPaliEngineDataset(\n            load_dataset("./data_dir/colpali_train_set", split="test"), pos_target_column_name="image"\n        )',
                'load_dataset("./data_dir/colpali_train_set", split="test")',
            )
        ),
    ),
    Planted(
        "script, main of 2026-03 with transformers 5",
        22,
        script(
            PREFIXED,
            more={
                "run.sh": FOUR,
                "requirements.txt": "git+https://github.com/illuin-tech/colpali@9be8f19\ntransformers==5.3.0\n",
            },
        ),
    ),
    Planted(
        "script, main of 2025-06",
        20,
        script(more={"run.sh": FOUR, "git_hash.txt": "b863674eb7eb5653e2cbfb52cce3a92fcf6b73a8"}),
    ),
    Planted(
        "script, base redrawn by versions",
        2,
        script(
            PREFIXED,
            more={
                "run.sh": FOUR,
                "requirements.txt": "colpali-engine==0.3.14\ntransformers==5.0.0\n",
            },
        ),
    ),
    Planted(
        "script, process_texts",
        5,
        script(
            ("    trainer = ", "    batch = processor.process_texts(['a query'])\n    trainer = ")
        ),
    ),
    Planted(
        "script, prefix twice",
        5,
        script(
            (
                "    trainer = ",
                "    batch = processor.process_queries([f'Query: {q}' for q in ['a']])\n    trainer = ",
            )
        ),
    ),
    Planted(
        "script, old evaluator",
        13,
        script(
            (
                "    trainer = ",
                "    from colpali_engine.trainer.eval_utils import CustomRetrievalEvaluator\n"
                "    evaluator = CustomRetrievalEvaluator()\n    trainer = ",
            )
        ),
    ),
    Planted(
        "script, peft beside an old engine",
        16,
        yaml_file(more={"requirements.txt": OLD_PINS.replace("0.11.1", "0.15.0")}),
    ),
    Planted(
        "script, max_pixels on the processor",
        21,
        script(
            (
                "max_num_visual_tokens=768)\n",
                "max_num_visual_tokens=768)\n    processor.max_pixels = 768 * 28 * 28\n",
            )
        ),
    ),
    Planted(
        "run folder, losses at ln 2",
        8,
        yaml_file("training_config.yml", more={"trainer_state.json": trainer_state([0.693] * 20)}),
    ),
    Planted(
        "run folder, losses of zero",
        15,
        yaml_file("training_config.yml", more={"trainer_state.json": trainer_state([0.0] * 20)}),
    ),
    # sentence-transformers and PyLate
    Planted("st, native", "F2", script(HF, source=SENTENCE_SCRIPT)),
    Planted("st, cached native", "F1", script(HF, CACHED, IMPORT_CACHED, source=SENTENCE_SCRIPT)),
    Planted(
        "st, epochs repeat",
        "F3",
        script(
            SAMPLER,
            IMPORT_SAMPLER,
            source=SENTENCE_SCRIPT,
            more={"run.sh": "torchrun --nproc_per_node=4 train.py\n"},
        ),
    ),
    Planted(
        "st, bare backbone",
        "F5",
        script(('"vidore/colqwen2-v1.0"', '"Qwen/Qwen2-VL-2B-Instruct"'), source=SENTENCE_SCRIPT),
    ),
    Planted(
        "st, not gathered",
        6,
        script(
            ("gather_across_devices=True", "gather_across_devices=False"),
            source=SENTENCE_SCRIPT,
            more={"run.sh": "torchrun --nproc_per_node 4 train.py\n"},
        ),
    ),
    Planted("pylate, cached", "F4", script(source=PYLATE)),
    Planted(
        "st, many queries a page",
        19,
        script(
            ('"vidore/colpali_train_set"', '"vidore/syntheticDocQA_energy_train"'),
            source=SENTENCE_SCRIPT,
        ),
    ),
)

SOUND = (
    Planted(
        "yaml, v0.1 by python, GPUs not said",
        None,
        yaml_file(
            arguments=V01,
            data="load_train_set_detailed",
            more={"run.sh": "python train_colbert.py train.yaml\n"},
        ),
    ),
    Planted("own script", None, helped()),
    Planted(
        "their folder of v1.0, one process",
        None,
        their_folder(state={"max_steps": 2310, "num_train_epochs": 5, "train_batch_size": 256}),
    ),
    Planted(
        "their adapter's settings alone",
        None,
        lambda folder, made: write(folder, adapter_config__json=json.dumps(ADAPTER)),
    ),
    *(Planted(f"recipe, {name}", None, shipped(name)) for name in shipped_names()),
    Planted("recipe, other seed and chunk", None, recipe("train.seed=7", "batch.chunk_size=2")),
    Planted(
        "recipe, tiny, shorter",
        None,
        recipe("train.steps=20", "batch.global_size=8", base="tiny", rename="short"),
    ),
    Planted(
        "recipe, tiny pairwise",
        None,
        recipe(
            "loss.name=pairwise",
            "loss.normalize=false",
            "loss.temperature=1.0",
            "optimizer.learning_rate=3e-4",
            base="tiny",
            rename="pair",
        ),
    ),
    Planted("recipe, 8-bit optimiser", None, recipe("optimizer.name=paged_adamw_8bit")),
    Planted("run", None, run()),
    Planted("run's model", None, lambda folder, made: run()(folder, made) / "model"),
    *(
        Planted(f"export, {kind}", None, model(kind))
        for kind in (
            "coltrain",
            "colpali-engine",
            "transformers",
            "sentence-transformers",
            "merged",
        )
    ),
    Planted("export, engine without card", None, model("colpali-engine", card=False)),
    Planted("hub adapter", None, adapter_only()),
    *(
        Planted(f"layout, {name}", None, layout(name))
        for name in (
            "colqwen2",
            "adapter of 2024",
            "native-5",
            "sentence-transformers, flat",
            "sentence-transformers, adapter",
        )
    ),
    Planted(
        "yaml, v0.1",
        None,
        yaml_file(
            arguments=V01,
            data="load_train_set_detailed",
            more={"requirements.txt": "colpali-engine==0.3.1\n"},
        ),
    ),
    Planted(
        "yaml, v0.1 on one process",
        None,
        yaml_file(
            "training_config.yml",
            arguments=V01,
            data="load_train_set_detailed",
            more={
                "run.sh": "CUDA_VISIBLE_DEVICES=0,1,2,3,4,5,6,7 python train_colbert.py training_config.yml\n"
            },
        ),
    ),
    Planted("yaml, v1.0", None, yaml_file()),
    Planted("yaml, v1.0 pinned", None, yaml_file(more={"requirements.txt": OLD_PINS})),
    Planted(
        "yaml, v1.0 on four",
        None,
        yaml_file(
            more={
                "run.sh": "CUDA_VISIBLE_DEVICES=0,1,2,3 python scripts/train/train_colbert.py train.yaml\n"
            }
        ),
    ),
    Planted(
        "yaml, new form spelled out",
        None,
        yaml_file(
            era="new", tokens="max_num_visual_tokens: 768", loss_lines="normalize_scores: false"
        ),
    ),
    Planted(
        "run folder, losses fall",
        None,
        yaml_file(
            "training_config.yml",
            more={"trainer_state.json": trainer_state([0.6 - 0.02 * n for n in range(20)])},
        ),
    ),
    Planted("script", None, script()),
    Planted("script on four", None, script(more={"run.sh": FOUR})),
    Planted(
        "script, pinned, prefix given back",
        None,
        script(PREFIXED, more={"requirements.txt": PINS, "run.sh": FOUR}),
    ),
    Planted(
        "script of today, softmax",
        None,
        script(("default=5e-4", "default=2e-4"), ('default="pairwise"', 'default="ce"')),
    ),
    Planted("st", None, script(source=SENTENCE_SCRIPT)),
    Planted(
        "st on four",
        None,
        script(source=SENTENCE_SCRIPT, more={"run.sh": "torchrun --nproc_per_node 4 train.py\n"}),
    ),
    Planted("st, cached flat", None, script(CACHED, IMPORT_CACHED, source=SENTENCE_SCRIPT)),
    Planted(
        "pylate",
        None,
        script(("CachedContrastive", "Contrastive"), (", mini_batch_size=16", ""), source=PYLATE),
    ),
)

_LATER = (
    LATER
    + WITH_RUNS
    + RUNS
    + tuple(
        Planted(name, trap, lambda folder, made, write=write: write(folder))
        for name, trap, write in FORMS
    )
)
PLANTED = PLANTED + FURTHER + tuple(one for one in _LATER if one.trap is not None)
SOUND = SOUND + tuple(one for one in _LATER if one.trap is None)
