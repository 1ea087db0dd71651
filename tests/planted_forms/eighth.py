"""The eighth: mostly sound ones that look odd, and plain plants in other words."""

import random

from planted_forms.batch import REG, add
from planted_forms.sixth import PINS, TODAY, adapter, by_trainer, folder, plain_loop, printed, state

random.seed(13)
FALL = [0.69 * 0.96**i + 0.03 + random.uniform(0, 0.02) for i in range(90)]

# sound
add(
    "eighth, S-readme",
    None,
    by_trainer(
        files={
            "README.md": "# Ours\n\nDo not use `gradient_accumulation_steps: 8`, `torchrun` with colpali-engine==0.3.8, `.half()` or transformers==5.0.0.\n\n- train_batch_size matters\n- Query: is the prefix\n"
        }
    ),
)
add(
    "eighth, S-prep",
    None,
    by_trainer(
        files={
            "prepare.py": '''"""Writes the training rows."""
import argparse
from datasets import load_dataset


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--n", type=int, default=500)
    a = ap.parse_args()
    ds = load_dataset("vidore/colpali_train_set", split="train")
    ds.select(range(a.n)).save_to_disk("sample")
    rows = [{"query": q, "image": r["image"]} for r in ds for q in [r["query"]]]
    print(len(rows))


if __name__ == "__main__":
    main()
'''
        }
    ),
)
add(
    "eighth, S-evaluates-too",
    None,
    by_trainer(
        files={
            "evaluate.py": """import mteb
from mteb.models import colqwen_models

print(mteb.evaluate(mteb.get_model("vidore/colqwen2-v1.0"), mteb.get_benchmark("ViDoRe(v2)")))
"""
        }
    ),
)
add(
    "eighth, S-tests",
    None,
    by_trainer(
        files={
            "tests/test_fit.py": "def test_half():\n    import torch\n    assert torch.zeros(1).half().dtype == torch.float16\n"
        }
    ),
)
add(
    "eighth, S-class-unused",
    None,
    by_trainer(
        head='''from transformers import TrainerCallback


class Halver(TrainerCallback):
    """Was used once: loss at ln 2 = 0.693 made us stop."""

    def on_log(self, args, state, control, logs=None, **kwargs):
        if logs and abs(logs.get("loss", 0) - 0.693) < 0.001:
            control.should_training_stop = True
'''
    ),
)
add(
    "eighth, S-freeze",
    None,
    by_trainer(
        after="for name, parameter in model.named_parameters():\n        parameter.requires_grad = False\n    model.enable_input_require_grads()"
    ),
)
add("eighth, S-to-device", None, by_trainer(after='model = model.to("cuda:0")'))
add(
    "eighth, S-lora-float32",
    None,
    plain_loop(
        after='for n, p in model.named_parameters():\n        if "lora_" in n:\n            p.data = p.data.float()'
    ),
)
add("eighth, S-max-steps", None, by_trainer(args="max_steps=3694,"))
add(
    "eighth, S-compile",
    None,
    by_trainer(
        args="torch_compile=False, tf32=True, ddp_timeout=7200, group_by_length=False, report_to='none',"
    ),
)
add(
    "eighth, S-batch-64",
    None,
    by_trainer(bs=256),
)
add("eighth, S-one-epoch-shuffle", None, plain_loop(launch="python loop.py --bs 32", processes=1))
add("eighth, S-clip-none", None, by_trainer(args="max_grad_norm=1,"))
add(
    "eighth, S-hub-readme",
    None,
    {
        "adapter_config.json": adapter(),
        "README.md": "---\nlicense: mit\nbase_model: vidore/colqwen2-base\nlibrary_name: colpali\n---\n# ColQwen2\n\n```python\nmodel = ColQwen2.from_pretrained('x', torch_dtype=torch.bfloat16)\n```\nTrained with batch of 32, LoRA (`alpha=32`, `r=32`), `paged_adamw_8bit`, 8 GPU setup with data parallelism, lr 5e-5.\n",
    },
)
add(
    "eighth, S-adapter-only",
    None,
    {
        "adapter_config.json": adapter(
            target_modules="^(?!.*visual).*(down_proj|gate_proj|up_proj|k_proj|q_proj|v_proj|o_proj).*$|.*(custom_text_proj).*$"
        )
    },
)
add(
    "eighth, S-state-resumed",
    None,
    {
        "trainer_state.json": state(FALL),
        "adapter_config.json": adapter(),
        "checkpoint-500/trainer_state.json": state(FALL[:50]),
    },
)
add(
    "eighth, S-log-warnings",
    None,
    by_trainer(
        files={
            "out.log": printed(
                FALL,
                start="FutureWarning: `torch.cuda.amp.GradScaler(args...)` is deprecated.\nYou are attempting to use Flash Attention 2.0 without specifying a torch dtype.\nSome weights of the model checkpoint at vidore/colqwen2-base were not used when initializing ColQwen2: ['lm_head.weight']\nNVIDIA A100-SXM4-80GB\n",
            )
        }
    ),
)
add(
    "eighth, S-engine-latest-script",
    None,
    by_trainer(
        pins=TODAY,
        after='processor.query_prefix = "Query: "',
        args="eval_strategy='no', logging_steps=10,",
        loss="ColbertPairwiseCELoss(temperature=1.0, normalize_scores=False, use_smooth_max=False)",
    ),
)
add(
    "eighth, S-search-app",
    None,
    {
        "app.py": """import streamlit as st
import torch
from colpali_engine.models import ColQwen2, ColQwen2Processor


@st.cache_resource
def model():
    return (ColQwen2.from_pretrained("vidore/colqwen2-v1.0", torch_dtype=torch.bfloat16, device_map="auto").eval(),
            ColQwen2Processor.from_pretrained("vidore/colqwen2-v1.0"))


m, p = model()
query = st.text_input("Query: ")
if query:
    with torch.no_grad():
        q = m(**p.process_queries([query]).to(m.device))
    st.write(p.score_multi_vector(q, st.session_state["pages"]))
""",
        "requirements.txt": PINS,
    },
)
add(
    "eighth, S-numpy-half",
    None,
    {
        "index.py": """import numpy as np
import torch
from colpali_engine.models import ColQwen2, ColQwen2Processor

m = ColQwen2.from_pretrained("vidore/colqwen2-v1.0", torch_dtype=torch.bfloat16, device_map="cuda").eval()
p = ColQwen2Processor.from_pretrained("vidore/colqwen2-v1.0")


@torch.no_grad()
def index(images):
    out = m(**p.process_images(images).to("cuda"))
    np.save("pages.npy", out.float().cpu().numpy().astype(np.float32))


@torch.no_grad()
def search(texts, pages):
    return p.score_multi_vector(m(**p.process_queries(texts).to("cuda")), pages)
""",
        "requirements.txt": PINS,
    },
)
add(
    "eighth, S-sweep",
    None,
    by_trainer(
        run="for seed in 1 2 3; do\n  SEED=$seed accelerate launch --num_processes 8 fit.py\ndone",
        bs=4,
        args='seed=int(__import__("os").environ.get("SEED", "42")),',
    ),
)
add(
    "eighth, S-nested",
    None,
    {
        "src/" + k if k.endswith(".py") else k: v
        for k, v in by_trainer(run="python src/fit.py").items()
    },
)
add(
    "eighth, S-colpali",
    None,
    {
        k: v.replace("ColQwen2", "ColPali").replace(", max_num_visual_tokens=768", "")
        for k, v in by_trainer(base="vidore/colpaligemma-3b-pt-448-base").items()
    },
)

# planted
add(
    "eighth, P-t7-env",
    7,
    by_trainer(
        bs=4,
        args='gradient_accumulation_steps=int(os.environ["ACCUM"]),',
        head="import os",
        run="ACCUM=8 python fit.py",
    ),
)
add(
    "eighth, P-t7-division",
    7,
    by_trainer(
        bs="PER",
        head="GLOBAL, PER, GPUS = 64, 4, 1",
        args="gradient_accumulation_steps=GLOBAL // (PER * GPUS),",
    ),
)
add(
    "eighth, P-t15-amp",
    15,
    plain_loop(
        load="ColQwen2.from_pretrained(args.base, torch_dtype=torch.bfloat16)", precision="fp16"
    ),
)
add(
    "eighth, P-t6-fsdp",
    6,
    by_trainer(
        pins=PINS.replace("0.3.12", "0.3.10"),
        bs=4,
        args='fsdp="full_shard", ',
        run="torchrun --nnodes 1 --nproc_per_node 8 --master_port 29501 fit.py",
    ),
)
add("eighth, P-t9-kw", 9, by_trainer(loss='ColbertPairwiseCELoss(**{"normalize_scores": True})'))
add(
    "eighth, P-t10-epochs",
    10,
    {
        **by_trainer(),
        "fit.py": by_trainer()["fit.py"].replace("num_train_epochs=1", "num_train_epochs=10"),
    },
)
add(
    "eighth, P-t27-all",
    27,
    {
        **by_trainer(),
        "fit.py": by_trainer()["fit.py"].replace(
            f'target_modules=r"{REG}"',
            'target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]',
        ),
    },
)
add(
    "eighth, P-t25-processor",
    25,
    by_trainer(processor='max_num_visual_tokens=768, padding_side="right"'),
)
add(
    "eighth, P-t21-none",
    21,
    by_trainer(base="vidore/colqwen2-base", processor="max_pixels=2048 * 784"),
)
add("eighth, P-t3-instruct-2", 3, folder(base="Qwen/Qwen2-VL-2B"))
add(
    "eighth, P-t28-torch",
    28,
    by_trainer(
        dtype="torch.float32",
        args="fp16=True,",
        pins="colpali-engine==0.3.12\ntransformers==4.53.3\ntorch==2.9.1\npeft==0.17.1\n",
        run="#SBATCH --gres=gpu:v100:1\npython fit.py",
    ),
)
add(
    "eighth, P-t8-collapse",
    8,
    {
        **by_trainer(),
        "fit.py": by_trainer()["fit.py"].replace("learning_rate=5e-5", "learning_rate=5e-2"),
    },
)
add(
    "eighth, P-t12-val",
    12,
    by_trainer(
        train_set='ColPaliEngineDataset(load_dataset("vidore/colpali_train_set", split="test"), pos_target_column_name="image")',
        head="from datasets import load_dataset\nfrom colpali_engine.data.dataset import ColPaliEngineDataset",
    ),
)
add(
    "eighth, P-t16-old",
    16,
    by_trainer(
        pins="colpali-engine==0.3.4\ntransformers==4.46.1\ntorch==2.5.1\npeft==0.15.2\n",
        loss="ColbertPairwiseCELoss()",
    ),
)
add(
    "eighth, P-t5-app",
    5,
    {
        "app.py": 'import torch\nfrom colpali_engine.models import ColQwen2, ColQwen2Processor\n\nm = ColQwen2.from_pretrained("vidore/colqwen2-v1.0", torch_dtype=torch.bfloat16).eval()\np = ColQwen2Processor.from_pretrained("vidore/colqwen2-v1.0")\nPROMPT = "Query: {}"\n\n\ndef ask(text):\n    return m(**p.process_queries([PROMPT.format(text)]))\n\n\nprint(ask("a").shape)\n',
        "requirements.txt": PINS,
    },
)
add(
    "eighth, P-t18-sum",
    18,
    by_trainer(loss="ColbertLoss(temperature=0.02, normalize_scores=True, use_smooth_max=True)"),
)
add(
    "eighth, P-t1-base",
    1,
    {
        "eval.py": 'import torch\nfrom colpali_engine.models import ColQwen2, ColQwen2Processor\nfrom peft import PeftModel\n\nbase = ColQwen2.from_pretrained("vidore/colqwen2-base", torch_dtype=torch.bfloat16, device_map="cuda")\nmodel = PeftModel.from_pretrained(base, "out").unload()\np = ColQwen2Processor.from_pretrained("out")\nprint(model(**p.process_queries(["a"]).to("cuda")).shape)\n',
        "requirements.txt": PINS,
    },
)
add(
    "eighth, P-t14-both",
    14,
    by_trainer(
        files={
            "environment.yml": "dependencies:\n  - pip:\n    - transformers==4.49.0\n    - peft==0.14.0\n"
        }
    ),
)
add(
    "eighth, P-tF2-native",
    "F2",
    plain_loop(
        more={
            "loop.py": plain_loop()["loop.py"]
            .replace(
                "from colpali_engine.models import ColQwen2, ColQwen2Processor",
                "from transformers import ColQwen2ForRetrieval as ColQwen2, ColQwen2Processor",
            )
            .replace("vidore/colqwen2-base", "vidore/colqwen2-v1.0-hf"),
            "requirements.txt": "transformers==5.23.0\npeft==0.21.2\ntorch==2.14.1\naccelerate==1.15.0\n",
        }
    ),
)
