"""One structure of facts from recipes, runs, models and foreign configurations."""

import json
from importlib.metadata import version

import pytest
from foreign_trainings import ENGINE_SCRIPT, SENTENCE_SCRIPT, engine_yaml, write
from run_on_paper import write_run

from coltrain.errors import UsageError
from coltrain.recipe import shipped_names
from coltrain.reproduction.targets import UNKNOWN, read_target
from coltrain.reproduction.traps import examine


def test_a_recipe_states_every_fact_that_a_training_has(tmp_path):
    for name in shipped_names():
        target = read_target(name)
        assert target.kind == "recipe"
        assert target.facts.knows("batch.candidates", "loss.normalize", "template.query_prefix")
    assert read_target("colqwen2-v0.1").facts.value("batch.negatives") == 31


def test_a_run_says_what_happened_rather_than_what_was_asked(tmp_path):
    target = read_target(str(write_run(tmp_path / "run")))
    assert target.kind == "run"
    assert target.facts["batch.candidates"].where == "metrics.jsonl, candidates_per_query"
    assert str(target.facts.value("versions.torch")) == version("torch")


def test_the_hard_negative_configuration_of_0_3_1_on_sixteen_ranks_meets_one_negative(tmp_path):
    folder = write(
        tmp_path / "run",
        train__yaml=engine_yaml(
            loss="ColbertPairwiseNegativeCELoss",
            data="load_train_set_ir_negs",
            more="add_suffix: true",
            arguments="per_device_train_batch_size: 2\n    optim: paged_adamw_8bit",
            dtype="torch.float16",
        ),
        job__slurm="#SBATCH --nodes=2\n#SBATCH --gres=gpu:v100:8\n"
        "torchrun --nnodes 2 --nproc_per_node=8 scripts/train/train_colbert.py train.yaml\n",
    )
    facts = read_target(str(folder)).facts
    assert facts.value("launch.world_size") == 16
    assert facts.value("batch.global_size") == 32
    assert facts.value("batch.candidates") == 1
    assert facts.value("batch.negatives") == 1
    assert facts.value("optimizer.name") == "paged_adamw_8bit"
    assert facts.value("precision.weights") == "float16"
    assert facts.value("hardware.capability") == "7.0"
    assert facts.value("loss.normalize") is False


@pytest.mark.parametrize(("era", "normalize"), [("old", False), ("new", True)])
def test_the_form_of_a_yaml_says_what_its_plain_loss_was(tmp_path, era, normalize):
    folder = write(tmp_path, train__yaml=engine_yaml(era=era))
    facts = read_target(str(folder / "train.yaml")).facts
    assert facts.value("loss.normalize") is normalize
    assert facts["loss.normalize"].sure == "default"


def test_a_launch_decides_what_the_script_s_options_are(tmp_path):
    folder = write(
        tmp_path,
        train__py=ENGINE_SCRIPT,
        run__sh="export LR=2e-4\naccelerate launch --num_processes 4 train.py --lr $LR --peft\n",
    )
    facts = read_target(str(folder)).facts
    assert facts.value("optimizer.learning_rate") == 2e-4
    assert facts.value("lora.r") == 32
    assert (facts.value("batch.global_size"), facts.value("batch.candidates")) == (256, 256)
    without = read_target(str(folder / "train.py"), launch="python train.py").facts
    assert without["lora.r"].value is None  # the launch that counts has no --peft


def test_values_come_from_files_variables_dataclasses_and_functions(tmp_path):
    folder = write(
        tmp_path,
        settings__py="BATCH = 2 ** 3\nBASE = 'vidore/' + 'colqwen2-base'\n",
        more__json=json.dumps({"learning_rate": "1e-4", "warmup_steps": 7}),
        train__py="""
import json, os
from dataclasses import dataclass
from settings import BATCH, BASE
import settings as s
from transformers import TrainingArguments
from colpali_engine.models import ColQwen2
from colpali_engine.trainer.contrastive_trainer import ContrastiveTrainer
from colpali_engine.loss import ColbertLoss

@dataclass
class Config:
    epochs: int = 2
    temperature: float = 0.05

def arguments(config, **more):
    with open("more.json") as file:
        given = json.load(file)
    return TrainingArguments(
        per_device_train_batch_size=BATCH * 2,
        gradient_accumulation_steps=int(os.environ.get("ACC", "4")),
        num_train_epochs=config.epochs,
        **given,
        **more,
    )

def main(config: Config = Config()):
    config.epochs += 1
    args = arguments(config, seed=7)
    args.optim = "adamw_bnb_8bit"
    model = ColQwen2.from_pretrained(s.BASE)
    trainer = ContrastiveTrainer(model=model, args=args, loss_func=ColbertLoss(config.temperature))

if __name__ == "__main__":
    main()
""",
    )
    facts = read_target(str(folder)).facts
    assert facts.value("batch.per_device") == 16
    assert facts.value("batch.accumulation") == 4
    assert facts.value("train.epochs") == 3
    assert facts.value("train.seed") == 7
    assert facts.value("optimizer.learning_rate") == 1e-4
    assert facts.value("optimizer.warmup_steps") == 7
    assert facts.value("optimizer.name") == "adamw_8bit"
    assert facts.value("loss.temperature") == 0.05
    assert facts.value("model.base") == "vidore/colqwen2-base"


def test_a_script_is_never_executed(tmp_path):
    mark = tmp_path / "ran"
    write(tmp_path, train__py=f"open({str(mark)!r}, 'w')\nfrom transformers import Trainer\n")
    read_target(str(tmp_path / "train.py"))
    assert not mark.exists()


def test_a_sentence_transformers_script(tmp_path):
    target = read_target(
        str(write(tmp_path, train__py=SENTENCE_SCRIPT) / "train.py"),
        launch="torchrun --nproc_per_node 4 train.py",
    )
    assert target.kind == "sentence-transformers"
    assert target.facts.value("batch.candidates") == 256
    assert target.facts.value("loss.temperature") == pytest.approx(0.02)
    assert target.facts.value("loss.normalize") is True


def test_steps_of_a_whole_run_say_how_many_ranks_it_had(tmp_path):
    folder = write(
        tmp_path,
        training_config__yml=engine_yaml(),
        trainer_state__json=json.dumps(
            {"max_steps": 2310, "num_train_epochs": 5, "train_batch_size": 64, "log_history": []}
        ),
    )
    facts = read_target(str(folder)).facts
    assert facts.value("launch.world_size") == 4
    assert facts["launch.world_size"].sure == "derived"


def test_what_nothing_says_is_unknown_and_can_be_told(tmp_path):
    folder = write(tmp_path, train__yaml=engine_yaml())
    facts = read_target(str(folder / "train.yaml")).facts
    assert facts["launch.world_size"].value is UNKNOWN
    assert not facts["batch.candidates"].is_known
    told = read_target(str(folder / "train.yaml"), settings=["launch.world_size=4"]).facts
    assert told.value("batch.candidates") == 64
    assert told["launch.world_size"].sure == "told"


def test_what_is_not_understood_is_listed(tmp_path):
    folder = write(tmp_path, train__yaml=engine_yaml(more="tr: !mine {a: 1}"))
    assert any("!mine" in one for one in read_target(str(folder / "train.yaml")).not_read)


def test_nothing_to_look_at_is_an_error(tmp_path):
    with pytest.raises(UsageError, match="no-such-target"):
        read_target(str(tmp_path / "missing" / "run"))
    with pytest.raises(UsageError, match="no-such-target"):
        read_target(str(tmp_path))
    write(tmp_path, train__yaml=engine_yaml())
    with pytest.raises(UsageError, match="unknown-fact"):
        read_target(str(tmp_path), settings=["ranks=4"])


@pytest.mark.parametrize(
    "text",
    [
        "rows = {}\nrows['a'].x.format('{query}')\n'{query}'.format('a')\n[].pop()\n",
        "from dataclasses import dataclass, field\n@dataclass\nclass C:\n    a: int = field(default_factory=other)\nprint(C().a.b.c)\n",
        "match x:\n    case {'a': 1}:\n        pass\n    case _:\n        pass\n",
        "f = lambda *a, **k: f(*a, **k)\nf(1)\n",
        "import sys\nmain(*sys.argv[1:])\nsys.argv[99]\n[x for x in range(10**9)]\n",
    ],
)
def test_odd_python_is_read_without_a_traceback(tmp_path, text):
    (tmp_path / "train.py").write_text(
        "from colpali_engine.models import ColQwen2\n" + text, encoding="utf-8"
    )
    examine(read_target(str(tmp_path / "train.py")))


def test_what_is_given_and_not_known_is_no_default(tmp_path):
    (tmp_path / "train.py").write_text(
        "from colpali_engine.models import ColQwen2\n"
        "from transformers import TrainingArguments\n"
        "a = TrainingArguments('o', per_device_train_batch_size=unknown.size, **others)\n"
    )
    facts = read_target(str(tmp_path / "train.py")).facts
    assert not facts["batch.per_device"].is_known
    assert not facts["train.epochs"].is_known


def test_several_trainings_below_a_folder_are_refused(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "train.py").write_text("import colpali_engine\n")
    with pytest.raises(UsageError, match="several trainings") as caught:
        read_target(str(tmp_path))
    assert "a/train.py, b/train.py" in str(caught.value)
