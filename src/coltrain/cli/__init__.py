"""The command line: a function for each verb, which parses, calls and prints."""

import logging
import os
import sys

import typer

from coltrain import console, hub
from coltrain.cli.benchmarks import benchmarks_list
from coltrain.cli.cache import cache_check, cache_clear, cache_show
from coltrain.cli.comparing import compare
from coltrain.cli.data import data_check, data_show
from coltrain.cli.doctor import doctor
from coltrain.cli.evaluation import encode, evaluate_model, spread_pages
from coltrain.cli.explaining import explain
from coltrain.cli.exporting import export
from coltrain.cli.gpu import gpu
from coltrain.cli.inspecting import inspect_model
from coltrain.cli.mining import mine
from coltrain.cli.planning import plan
from coltrain.cli.precision import precision
from coltrain.cli.published import published
from coltrain.cli.recipes import recipes_diff, recipes_list, recipes_show
from coltrain.cli.reports import report
from coltrain.cli.study import study
from coltrain.cli.training import demo, resume, train
from coltrain.cli.verification import verify
from coltrain.errors import ColtrainError

app = typer.Typer(
    name="coltrain",
    help="Train ColQwen2 on the GPU you have, evaluate it, and learn why the number differs.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
# In the order of the help.
for name, function in {
    "train": train,
    "resume": resume,
    "eval": evaluate_model,
    "encode": encode,
    "export": export,
    "inspect": inspect_model,
    "explain": explain,
    "verify": verify,
    "demo": demo,
    "doctor": doctor,
    "compare": compare,
    "study": study,
    "published": published,
    "mine": mine,
    "plan": plan,
    "precision": precision,
    "gpu": gpu,
    "report": report,
}.items():
    app.command(name=name)(function)

recipe_commands = typer.Typer(
    help="List, show and compare recipes.", no_args_is_help=True, rich_markup_mode=None
)
for name, function in {"list": recipes_list, "show": recipes_show, "diff": recipes_diff}.items():
    recipe_commands.command(name=name)(function)
app.add_typer(recipe_commands, name="recipes")

benchmark_commands = typer.Typer(
    help="The benchmarks that `eval --on` knows by name.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
benchmark_commands.command(name="list")(benchmarks_list)
app.add_typer(benchmark_commands, name="benchmarks")
data_commands = typer.Typer(
    help="Look at data sets, and compare them.", no_args_is_help=True, rich_markup_mode=None
)
for name, function in {"show": data_show, "check": data_check}.items():
    data_commands.command(name=name)(function)
app.add_typer(data_commands, name="data")
cache_commands = typer.Typer(
    help="Visual tokens and resized pages that trainings keep on disk (data.vision_cache, data.page_cache).",
    no_args_is_help=True,
    rich_markup_mode=None,
)
for name, function in {"show": cache_show, "check": cache_check, "clear": cache_clear}.items():
    cache_commands.command(name=name)(function)
app.add_typer(cache_commands, name="cache")


def main() -> None:
    """Run a command; one clear error and its exit code where one goes wrong."""
    # Before torch is loaded: its threads must sleep, not spin, while they wait for one another. On
    # two cores with other work beside, spinning made a step of the tiny model 5 to 10 times longer.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # peft imports it wherever it is installed, and it warns of a kernel that nobody asked for.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    hub.show_downloads(console.download_progress)
    _speak_utf8()
    console.print_what_the_terminal_cannot_show()
    arguments = sys.argv[1:]
    try:
        if arguments[:1] == ["encode"]:
            arguments = spread_pages(arguments)
        app(args=arguments)
    except ColtrainError as error:
        console.print_error(error)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        console.print_error(KeyboardInterrupt("stopped"))
        sys.exit(130)


def _speak_utf8() -> None:
    """Start again in UTF-8 where the locale knows ASCII only.

    There Python takes the bytes of a file's name for no text, and nothing can be done about it once
    it runs: names in recipes and names in folders would be two things.
    """
    if sys.getfilesystemencoding().lower().replace("-", "") != "utf8":
        sys.stdout.flush()
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])
