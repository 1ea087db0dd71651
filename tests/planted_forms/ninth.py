"""Further forms that came to mind while the eighth was mended; their first figures would say nothing."""

from planted_forms.batch import add
from planted_forms.sixth import PINS, by_settings, by_trainer, plain_loop

LOOP = plain_loop()["loop.py"]


def looped(*edits, **more):
    text = LOOP
    for old, new in edits:
        assert old in text
        text = text.replace(old, new)
    return plain_loop(**more) | {"loop.py": text}


STEP = """                optimizer.step()
                schedule.step()
                optimizer.zero_grad()
"""


def every(passes, condition="(n + 1) % {} == 0"):
    head = "        for n, (queries, pages) in enumerate(loader):"
    lines = "".join(f"    {line}\n" for line in STEP.splitlines())
    return (
        ("        for queries, pages in loader:", head),
        (STEP, f"                if {condition.format(passes)}:\n{lines}"),
    )


add("ninth, accumulated by hand", 7, looped(*every(8), launch="python loop.py --bs 4", processes=1))
add(
    "ninth, accumulated by an option",
    7,
    looped(
        *every("args.accumulate"),
        (
            "    args = ap.parse_args()",
            '    ap.add_argument("--accumulate", type=int, default=16)\n    args = ap.parse_args()',
        ),
        launch="python loop.py --bs 2",
        processes=1,
    ),
)
add(
    "ninth, an option for accumulation that is off",
    None,
    looped(
        *every("args.accumulate"),
        (
            "    args = ap.parse_args()",
            '    ap.add_argument("--accumulate", type=int, default=1)\n    args = ap.parse_args()',
        ),
        launch="python loop.py --bs 32",
        processes=1,
    ),
)
add(
    "ninth, prints every tenth",
    None,
    looped(
        (
            "        for queries, pages in loader:",
            "        for n, (queries, pages) in enumerate(loader):",
        ),
        (
            STEP,
            STEP + "                if n % 10 == 0:\n                    print(n, loss.item())\n",
        ),
    ),
)
SAMPLER = """

class Shuffled(Sampler):
    def __init__(self, rows, seed=0):
        self.rows, self.seed, self.epoch = rows, seed, 0

    def __iter__(self):
        generator = torch.Generator().manual_seed(self.seed{})
        return iter(torch.randperm(len(self.rows), generator=generator).tolist())

    def __len__(self):
        return len(self.rows)


def gather(x):"""


def sampled(seed):
    return looped(
        ("\n\ndef gather(x):", SAMPLER.format(seed)),
        ("import DataLoader", "import DataLoader, Sampler"),
        ("shuffle=True, ", "sampler=Shuffled(rows_all), "),
        launch="accelerate launch --config_file acc.yaml loop.py --bs 4 --epochs 3",
    )


add("ninth, a sampler that knows no epoch", "F3", sampled(""))
add(
    "ninth, a sampler that knows the epoch",
    None,
    sampled(" + self.epoch")
    | {"train.sh": "accelerate launch --config_file acc.yaml loop.py --bs 4\n"},
)
SEARCH = """import torch
from colpali_engine.models import ColQwen2, ColQwen2Processor

model = {}
processor = ColQwen2Processor.from_pretrained("vidore/colqwen2-base", max_num_visual_tokens=768)


@torch.no_grad()
def search(texts, pages):
    return processor.score_multi_vector(model(**processor.process_queries(texts).to("cuda")), pages)
"""
BASE = 'ColQwen2.from_pretrained("vidore/colqwen2-base", torch_dtype=torch.bfloat16, device_map="cuda").eval()'
add("ninth, the base alone", 1, {"s.py": SEARCH.format(BASE), "requirements.txt": PINS})
add(
    "ninth, the adapter loaded onto it",
    None,
    {"s.py": SEARCH.format(BASE + '\nmodel.load_adapter("out")'), "requirements.txt": PINS},
)
add(
    "ninth, a model from its configuration",
    2,
    by_trainer(after="model = ColQwen2(model.config)"),
)
add("ninth, weights drawn again", 2, by_trainer(after="model.init_weights()"))
add(
    "ninth, more data beside the published",
    12,
    by_trainer(
        train_set='ColPaliEngineDataset(concatenate_datasets([load_dataset("vidore/colpali_train_set", split="train"), load_dataset("acme/slides", split="train")]), pos_target_column_name="image")',
        head="from datasets import concatenate_datasets, load_dataset\nfrom colpali_engine.data.dataset import ColPaliEngineDataset",
    ),
)
add(
    "ninth, accelerate on a CPU",
    26,
    looped(
        ("Accelerator(", "Accelerator(cpu=True, "),
        launch="torchrun --nproc_per_node 2 loop.py --bs 16",
    ),
)
SETTINGS = by_settings()
add(
    "ninth, detailed rows under sentence-transformers",
    12,
    SETTINGS
    | {"st.py": SETTINGS["st.py"].replace("colpali_train_set", "colpali_train_set_detailed")},
)
