"""Planted trainings that came later, and those that are runs of ours."""

import shutil

from foreign_trainings import SENTENCE_SCRIPT, TARGETS, engine_yaml, write
from planted_making import (
    FOUR,
    HF,
    LAUNCH,
    V01,
    Planted,
    edit_json,
    edit_lines,
    edit_tensors,
    helped,
    layout,
    model,
    put,
    recipe,
    rename,
    repeated_rows,
    run,
    script,
    their_folder,
    with_tr_args,
    yaml_file,
)

FURTHER = (
    Planted(
        "recipe, small batch of v0.1",
        6,
        recipe("batch.global_size=4", "batch.chunk_size=4", base="colqwen2-v0.1"),
    ),
    Planted(
        "recipe, rank 8 under a name of its own",
        10,
        recipe("lora.r=8", base="colqwen2-v0.1", rename="mine"),
    ),
    Planted("recipe, projection drawn", 3, recipe("projection.start=normal", rename="mine")),
    Planted(
        "recipe, softmax too warm", 9, recipe("loss.temperature=1.0", base="tiny", rename="mine")
    ),
    Planted(
        "recipe, evaluates on its training rows",
        13,
        recipe("eval.data=[tiny:train]", base="tiny", rename="mine"),
    ),
    Planted(
        "recipe, language model alone, as a list of names",
        27,
        recipe("lora.target_modules=.*self_attn.(q_proj|v_proj)$", base="tiny", rename="mine"),
    ),
    Planted(
        "run, projection gone", 3, run(lambda f: (f / "model" / "projection.safetensors").unlink())
    ),
    Planted(
        "run, groups in its recipe", 6, run(edit_json("run.json", put("recipe/batch/negatives", 2)))
    ),
    Planted(
        "run, base of another name",
        2,
        run(
            edit_json(
                "model/adapter_config.json",
                put("base_model_name_or_path", "Qwen/Qwen2-VL-2B-Instruct"),
            )
        ),
    ),
    Planted(
        "run, probe read without prefix",
        4,
        run(
            edit_json(
                "run.json", lambda c: c["probe"].update(query_ids=c["probe"]["query_ids"][4:])
            )
        ),
    ),
    Planted(
        "run, batches repeat",
        "F3",
        run(
            lambda f: (
                edit_lines(
                    lambda line, n: line.update(loss=1.0 / (1 + n % 5), masked_duplicates=0)
                )(f),
                edit_json("run.json", put("plan/batches_per_epoch", 5))(f),
            )[0]
        ),
    ),
    Planted(
        "run, losses not finite",
        15,
        run(edit_lines(lambda line, n: line.update(loss=float("inf")) if n > 8 else None)),
    ),
    Planted(
        "st model, template without prefix",
        "F5",
        model(
            "sentence-transformers",
            lambda f: (f / "chat_template.jinja").write_text(
                (f / "chat_template.jinja").read_text().replace("Query: ", "")
            ),
        ),
    ),
    Planted(
        "st model, prefix twice",
        5,
        model(
            "sentence-transformers",
            edit_json("config_sentence_transformers.json", put("prompts/query", "Query: ")),
        ),
    ),
    Planted(
        "native model, other prompt",
        4,
        model(
            "transformers",
            edit_json("processor_config.json", put("visual_prompt_prefix", "<image>Page.")),
        ),
    ),
    Planted(
        "native model, other budget",
        21,
        model(
            "transformers", edit_json("preprocessor_config.json", put("size/longest_edge", 1003520))
        ),
    ),
    Planted(
        "merged model, embeddings redrawn",
        2,
        layout(
            "transformers",
            edit_tensors(
                "model.safetensors",
                lambda t: t["model.language_model.embed_tokens.weight"].normal_(
                    std=0.0618718433538229
                ),
            ),
        ),
    ),
    Planted(
        "merged model, a tensor gone",
        2,
        layout(
            "released, sharded, with lm_head",
            edit_tensors(
                "model-00001-of-00002.safetensors",
                lambda t: {k: v for n, (k, v) in enumerate(t.items()) if n != 3},
            ),
        ),
    ),
    Planted(
        "adapter, keys with a prefix too much",
        1,
        layout(
            "adapter of today",
            edit_tensors(
                "adapter_model.safetensors",
                rename("base_model.model.", "base_model.model.model.model."),
            ),
        ),
    ),
    Planted(
        "adapter, one B zero",
        1,
        layout(
            "adapter of 2024",
            edit_tensors(
                "adapter_model.safetensors",
                lambda t: next(v for k, v in t.items() if "lora_B" in k).zero_(),
            ),
        ),
    ),
    Planted(
        "adapter, half type",
        17,
        layout(
            "adapter of today",
            edit_tensors(
                "adapter_model.safetensors", lambda t: {k: v.half() for k, v in t.items()}
            ),
        ),
    ),
    Planted("yaml, imported arguments accumulate", 7, with_tr_args),
    Planted(
        "yaml, told sixteen ranks",
        6,
        yaml_file(arguments=V01.replace("size: 4", "size: 2"), data="load_train_set_detailed"),
        ("launch.world_size=16",),
    ),
    Planted(
        "yaml, accelerate's file",
        6,
        yaml_file(
            arguments=V01,
            more={
                "accelerate_config.yaml": "compute_environment: LOCAL_MACHINE\ndistributed_type: MULTI_GPU\nnum_processes: 8\nmixed_precision: 'no'\n"
            },
        ),
    ),
    Planted(
        "their folder, adapter over instruct",
        3,
        their_folder(base_model_name_or_path="Qwen/Qwen2-VL-2B-Instruct"),
    ),
    Planted("their folder, other rank", 10, their_folder(r=16)),
    Planted(
        "their folder, torchrun by its steps",
        6,
        their_folder(state={"max_steps": 2310, "num_train_epochs": 5, "train_batch_size": 64}),
    ),
    Planted("their folder, stuck at ln 2", 8, their_folder([0.6932] * 30)),
    Planted("own script, divided by its file", 9, helped(normalize=True)),
    Planted("own script, rank by the command line", 10, helped(rank=" --rank 4 --alpha 4")),
    Planted(
        "own script, accumulation by the command line",
        7,
        helped(LAUNCH.replace("size 64", "size 8") + " --gradient_accumulation_steps 8"),
    ),
    Planted("own script, adapter on everything", 27, helped(targets="all-linear")),
    Planted("own script, 256 tokens", 10, helped(tokens=256)),
    Planted(
        "own script, base by the command line", 3, helped(rank=" --base Qwen/Qwen2-VL-2B-Instruct")
    ),
    Planted("own script, fp16 over bfloat16", 15, helped(LAUNCH + " --fp16 true")),
    Planted(
        "script, other augmentation",
        5,
        script(
            (
                "max_num_visual_tokens=768)\n",
                "max_num_visual_tokens=768)\n    processor.query_augmentation_token = '<pad>'\n",
            )
        ),
    ),
    Planted(
        "script, prefix taken on the class",
        4,
        script(("    processor = ", "    ColQwen2Processor.query_prefix = ''\n    processor = ")),
    ),
    Planted(
        "script, padding turned",
        25,
        script(
            (
                "max_num_visual_tokens=768)\n",
                "max_num_visual_tokens=768)\n    processor.tokenizer.padding_side = 'right'\n",
            )
        ),
    ),
    Planted(
        "script, own gather",
        20,
        script(
            (
                "    trainer = ",
                "    import torch.distributed as dist\n    dist.all_gather(list(model), model)\n    trainer = ",
            )
        ),
    ),
)

LATER = (
    Planted(
        "recipe int tokens 2048", 10, recipe("model.max_visual_tokens=2048", base="colqwen2-v0.1")
    ),
    Planted("recipe epochs 1 v1.0", 10, recipe("train.epochs=1.0")),
    Planted("recipe warmup 0", 10, recipe("optimizer.warmup_steps=0", base="colqwen2-v0.1")),
    Planted("recipe alpha 128", 10, recipe("lora.alpha=128.0")),
    Planted(
        "recipe tiny smaller tokens",
        None,
        recipe("model.max_visual_tokens=36", base="tiny", rename="t2"),
    ),
    Planted(
        "recipe v0.1 steps",
        10,
        recipe("train.epochs=null", "train.steps=500", base="colqwen2-v0.1"),
    ),
    Planted(
        "recipe float32 sound",
        None,
        recipe(
            "model.dtype=float32",
            "precision.compute=float32",
            "lora.dtype=float32",
            base="colqwen2-v100",
            rename="v100-f32",
        ),
    ),
    Planted(
        "recipe auto", None, recipe("precision.compute=auto", base="colqwen2-v100", rename="mine")
    ),
    Planted("recipe hardneg regex", 11, recipe("data.train=[manu/colpali-data-ir]")),
    Planted(
        "recipe own template no suffix",
        5,
        recipe(
            "model.template={name: mine, query_prefix: 'Query: ', query_suffix: '', page_prompt: '<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>Describe the image.<|im_end|><|endoftext|>'}"
        ),
    ),
    Planted(
        "recipe own template question",
        4,
        recipe(
            "model.template={name: mine, query_prefix: 'Question: ', query_suffix: '<|endoftext|><|endoftext|><|endoftext|><|endoftext|><|endoftext|><|endoftext|><|endoftext|><|endoftext|><|endoftext|><|endoftext|>', page_prompt: '<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>Describe the image.<|im_end|><|endoftext|>'}",
            base="tiny",
            rename="tt",
        ),
    ),
    Planted("recipe transformers-native", "F5", recipe("model.template=transformers-native")),
    Planted(
        "recipe frozen drawn",
        3,
        recipe("projection.start=normal", "projection.train=frozen", base="tiny", rename="x"),
    ),
    Planted("run missing metrics", None, run(lambda f: (f / "metrics.jsonl").write_text(""))),
    Planted(
        "run capability 7.0",
        28,
        run(
            edit_json(
                "run.json",
                lambda c: c["device"].update(
                    type="cuda", name="Tesla V100-SXM2-32GB", capability="7.0"
                ),
            )
        ),
    ),
    Planted(
        "run base hash", 2, run(edit_json("run.json", put("base_weights_hash", "0123456789abcdef")))
    ),
    Planted("run lr jump", 10, run(edit_lines(lambda line, n: line.update(lr=0.02)))),
    Planted(
        "run skipped",
        15,
        run(edit_lines(lambda line, n: line.update(skipped=True) if n % 2 else None)),
    ),
    Planted(
        "run result hash",
        10,
        run(edit_json("run.json", put("recipe/optimizer/learning_rate", 5e-3))),
    ),
    Planted(
        "run tokens card", 21, run(edit_json("model/coltrain.json", put("max_visual_tokens", 16)))
    ),
    Planted(
        "run grad zero", 8, run(edit_lines(lambda line, n: line.update(loss=2.0794, grad_norm=0.0)))
    ),
    Planted(
        "run adapter nan",
        1,
        run(
            edit_tensors(
                "model/adapter_model.safetensors",
                lambda t: next(iter(t.values())).fill_(float("nan")),
            )
        ),
    ),
    Planted(
        "model nan merged",
        2,
        model(
            "merged",
            edit_tensors(
                "model.safetensors",
                lambda t: t["language_model.layers.0.mlp.up_proj.weight"].fill_(float("nan")),
            ),
        ),
    ),
    Planted(
        "model merged changed tensor",
        2,
        model(
            "merged",
            edit_tensors(
                "model.safetensors",
                lambda t: t["language_model.layers.0.mlp.up_proj.weight"].mul_(1.01),
            ),
        ),
    ),
    Planted(
        "model merged projection changed",
        3,
        model(
            "merged",
            edit_tensors("model.safetensors", lambda t: t["custom_text_proj.weight"].normal_()),
        ),
    ),
    Planted(
        "st dense gone", 3, model("sentence-transformers", lambda f: shutil.rmtree(f / "1_Dense"))
    ),
    Planted(
        "st dense redrawn",
        3,
        model(
            "sentence-transformers",
            edit_tensors("1_Dense/model.safetensors", lambda t: t["linear.weight"].normal_()),
        ),
    ),
    Planted(
        "engine adapter base without proj",
        3,
        model(
            "colpali-engine",
            edit_tensors(
                "base/model.safetensors",
                lambda t: {k: v for k, v in t.items() if "custom_text" not in k},
            ),
            card=False,
        ),
    ),
    Planted(
        "engine adapter rank config",
        1,
        model("colpali-engine", edit_json("adapter_config.json", put("r", 16)), card=False),
    ),
    Planted(
        "engine adapter regex misses proj",
        27,
        model(
            "colpali-engine",
            edit_json(
                "adapter_config.json",
                put("target_modules", TARGETS.split("|.*(custom")[0].strip("(") + ")"),
            ),
            card=False,
        ),
    ),
    Planted(
        "engine adapter regex vision",
        27,
        model(
            "colpali-engine",
            edit_json(
                "adapter_config.json",
                put(
                    "target_modules",
                    ".*(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj|qkv|fc1|fc2|custom_text_proj)$",
                ),
            ),
            card=False,
        ),
    ),
    Planted(
        "engine adapter drop proj tensors",
        27,
        model(
            "colpali-engine",
            edit_tensors(
                "adapter_model.safetensors",
                lambda t: {k: v for k, v in t.items() if "custom_text" not in k},
            ),
            card=False,
        ),
    ),
    Planted(
        "adapter_config rslora",
        1,
        model(
            "colpali-engine", edit_json("adapter_config.json", put("use_rslora", True)), card=False
        ),
    ),
    Planted(
        "yaml bf16 on v100 slurm",
        28,
        yaml_file(
            more={"job.sh": "#SBATCH --gres=gpu:v100:4\npython train_colbert.py train.yaml\n"}
        ),
    ),
    Planted(
        "yaml fp16 true + bf16",
        15,
        yaml_file(
            arguments="num_train_epochs: 5\n    per_device_train_batch_size: 64\n    warmup_steps: 100\n    learning_rate: 5e-4\n    fp16: true"
        ),
    ),
    Planted(
        "yaml accum in comment sound",
        None,
        yaml_file(
            arguments="num_train_epochs: 5\n    per_device_train_batch_size: 64\n    # gradient_accumulation_steps: 4\n    warmup_steps: 100\n    learning_rate: 5e-4\n    # fp16: true"
        ),
    ),
    Planted(
        "yaml all in list",
        27,
        (
            lambda folder, made: (
                write(
                    folder,
                    train__yaml=engine_yaml().replace(
                        f"target_modules: '{TARGETS}'",
                        "target_modules: [q_proj, k_proj, v_proj, o_proj]",
                    ),
                )
                / "train.yaml"
            )
        ),
    ),
    Planted(
        "yaml list with all sound",
        None,
        (
            lambda folder, made: (
                write(
                    folder,
                    train__yaml=engine_yaml().replace(
                        f"target_modules: '{TARGETS}'",
                        "target_modules: [q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj, custom_text_proj]",
                    ),
                )
                / "train.yaml"
            )
        ),
    ),
    Planted(
        "yaml deepspeed",
        6,
        yaml_file(
            arguments=V01, more={"go.sh": "deepspeed --num_gpus 8 train_colbert.py train.yaml\n"}
        ),
    ),
    Planted(
        "yaml srun torchrun",
        6,
        yaml_file(
            arguments=V01,
            more={
                "go.sh": "srun torchrun --nnodes=$SLURM_NNODES --nproc_per_node=4 train_colbert.py train.yaml\n"
            },
        ),
    ),
    Planted(
        "yaml eval raw",
        24,
        (
            lambda folder, made: (
                write(
                    folder,
                    train__yaml=engine_yaml(
                        era="new",
                        tokens="max_num_visual_tokens: 768",
                        loss_lines="normalize_scores: false",
                        more="eval_dataset:\n    (): colpali_engine.utils.dataset_transformation.load_eval_set\n    dataset_path: ./data_dir/x",
                    ),
                )
                / "train.yaml"
            )
        ),
    ),
    Planted(
        "yaml tf5 overwrite",
        23,
        yaml_file(
            era="new",
            tokens="max_num_visual_tokens: 768",
            loss_lines="normalize_scores: false",
            arguments="overwrite_output_dir: true\n    num_train_epochs: 5\n    per_device_train_batch_size: 64\n    warmup_steps: 100\n    learning_rate: 5e-4",
            more={
                "environment.yml": "dependencies:\n  - pip:\n    - transformers==5.23.0\n    - colpali-engine==0.3.18\n    - torch==2.8.0\n    - peft==0.18.1\n"
            },
        ),
    ),
    Planted(
        "yaml v100 torch 2.14",
        28,
        yaml_file(
            dtype="torch.float32",
            more={
                "requirements.txt": "torch==2.14.1\n",
                "job.sh": "#SBATCH --constraint=v100\n#SBATCH --gres=gpu:4\npython train_colbert.py train.yaml\n",
            },
        ),
    ),
    Planted(
        "script softmax cfg",
        9,
        script(("ColbertPairwiseCELoss(normalize_scores=False)", "ColbertLoss(temperature=1.0)")),
    ),
    Planted(
        "script kwargs dict",
        7,
        script(
            ("    model = ", "    extra = dict(gradient_accumulation_steps=4)\n    model = "),
            ("warmup_steps=100,", "warmup_steps=100, **extra,"),
        ),
    ),
    Planted(
        "script setattr args",
        7,
        script(
            (
                "    trainer = ",
                "    config.tr_args.gradient_accumulation_steps = 16\n    trainer = ",
            )
        ),
    ),
    Planted(
        "script device half map",
        15,
        script(("torch_dtype=torch.bfloat16", "torch_dtype=torch.float16")),
    ),
    Planted("script dtype str", 15, script(("torch_dtype=torch.bfloat16", "dtype='float16'"))),
    Planted(
        "script two sets on four",
        "F3",
        script(
            (
                "train_dataset=load_train_set(),",
                "train_dataset=[load_train_set(), load_train_set()],",
            ),
            more={"run.sh": FOUR},
        ),
    ),
    Planted(
        "script mteb doubling",
        5,
        script(more={"run.sh": FOUR, "requirements.txt": "mteb==2.3.0\n"}),
    ),
    Planted(
        "st no prompts qwen3",
        "F5",
        script(('"vidore/colqwen2-v1.0"', '"Qwen/Qwen3-VL-2B-Instruct"'), source=SENTENCE_SCRIPT),
    ),
    Planted(
        "st cached minibatch positional",
        "F1",
        script(
            HF,
            (
                "MultiVectorMultipleNegativesRankingLoss(\n        model,",
                "MultiVectorMultipleNegativesRankingLoss(\n        model, mini_batch_size=4,",
            ),
            source=SENTENCE_SCRIPT,
        ),
    ),
    Planted(
        "st, native under an earlier transformers",
        None,
        script(HF, source=SENTENCE_SCRIPT, more={"requirements.txt": "transformers==4.53.3\n"}),
    ),
)

WITH_RUNS = (
    Planted(
        "run, a pair met by the record",
        6,
        run(edit_json("run.json", put("candidates_per_query", {"min": 2, "median": 2, "max": 2}))),
    ),
    Planted(
        "run, rows of one epoch before",
        "F3",
        run(repeated_rows),
    ),
    Planted(
        "run, an earlier torch", None, run(edit_json("run.json", put("versions/torch", "2.7.1")))
    ),
    Planted(
        "run, an earlier transformers 5",
        None,
        run(edit_json("run.json", put("versions/transformers", "5.3.0"))),
    ),
    Planted(
        "colpali, its own regex and mined pages",
        None,
        yaml_file(
            model="ColPali",
            loss="ColbertPairwiseNegativeCELoss",
            data="load_train_set_ir_negs",
            targets="(.*(language_model).*(down_proj|gate_proj|up_proj|k_proj|q_proj|v_proj|o_proj).*$|.*(custom_text_proj).*$)",
        ),
    ),
    Planted(
        "run, two ranks over gloo",
        None,
        run(edit_json("run.json", put("ranks", [{"after_step": 0, "size": 2, "backend": "gloo"}]))),
    ),
)
"""What a run records, and versions that are no matter."""
