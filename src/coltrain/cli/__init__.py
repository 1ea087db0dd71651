"""The command line: a function for each verb, which parses, calls and prints."""

import os
import sys

import typer

from coltrain import console
from coltrain.cli.evaluation import encode, evaluate_model, spread_pages
from coltrain.cli.mining import mine
from coltrain.cli.recipes import recipes_diff, recipes_list, recipes_show
from coltrain.cli.reports import report
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
    "verify": verify,
    "demo": demo,
    "mine": mine,
    "report": report,
}.items():
    app.command(name=name)(function)

recipe_commands = typer.Typer(
    help="List, show and compare recipes.", no_args_is_help=True, rich_markup_mode=None
)
for name, function in {"list": recipes_list, "show": recipes_show, "diff": recipes_diff}.items():
    recipe_commands.command(name=name)(function)
app.add_typer(recipe_commands, name="recipes")


def main() -> None:
    """Run a command; one clear error and its exit code where one goes wrong."""
    # Before torch is loaded: its threads must sleep, not spin, while they wait for one another. On
    # two cores with other work beside, spinning made a step of the tiny model 5 to 10 times longer.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
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
