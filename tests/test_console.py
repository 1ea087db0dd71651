import io

import pytest

from coltrain import console
from coltrain.console import TrainingView, print_results, print_table
from coltrain.evaluation.measures import DEFAULT_MEASURES
from coltrain.evaluation.results import Result
from coltrain.training.events import EvaluationResult, EvaluationStarts, Notice, StepResult


@pytest.fixture(autouse=True)
def _fixed_width(monkeypatch):
    monkeypatch.setenv("COLUMNS", "90")


def result(name="outline/test", score=0.8125):
    return Result(name, 200, 240, dict.fromkeys(DEFAULT_MEASURES, score), {})


def test_results_are_a_table_of_scores_times_100(capsys):
    print_results([result(), result("receipts/test", 1.0)])
    assert [line.rstrip() for line in capsys.readouterr().out.splitlines()] == [
        "scores x 100",
        "┏━━━━━━━━━━━━━━━┳━━━━━━━━━┳━━━━━━━┳━━━━━━━━┳━━━━━━━━━┳━━━━━━━━━━┳━━━━━━━━━━┳━━━━━━━━┓",
        "┃ data set      ┃ queries ┃ pages ┃ nDCG@5 ┃ nDCG@10 ┃ Recall@1 ┃ Recall@5 ┃ MRR@10 ┃",
        "┡━━━━━━━━━━━━━━━╇━━━━━━━━━╇━━━━━━━╇━━━━━━━━╇━━━━━━━━━╇━━━━━━━━━━╇━━━━━━━━━━╇━━━━━━━━┩",
        "│ outline/test  │     200 │   240 │   81.2 │    81.2 │     81.2 │     81.2 │   81.2 │",
        "│ receipts/test │     200 │   240 │  100.0 │   100.0 │    100.0 │    100.0 │  100.0 │",
        "└───────────────┴─────────┴───────┴────────┴─────────┴──────────┴──────────┴────────┘",
    ]


@pytest.mark.parametrize("name", ["[tiny:train]", "a[/b]c", "[bold]x", ":smile:"])
def test_names_are_printed_as_they_are(capsys, name):
    print_table("names", ["name"], [[name]])
    assert f"│ {name}" in capsys.readouterr().out
    with console.item_progress(f"encoding {name}", 1) as advance:
        advance()
    console.stderr().print(f"run: {name}")
    assert f"run: {name}" in capsys.readouterr().err


def step(number, loss=1.5):
    return StepResult(number, 4, 0, loss, 1e-3, 0.5, 32.0, 0, 12.34, 2.5)


def test_lines_are_plain_where_stderr_is_no_terminal(capsys):
    with TrainingView(every=2) as view:
        view.show(EvaluationStarts(0, 2))
        view.advance_item()
        view.show(EvaluationResult(0, result(score=0.25), 3.25, 1.0))
        for number in range(1, 4):
            view.show(step(number))
        view.show(Notice("the loss has stood [at] 0.6931"))
        view.show(step(4))
        view.show(EvaluationResult(4, result(), None, 1.0))
    captured = capsys.readouterr()
    assert captured.out == ""
    assert [line.rstrip() for line in captured.err.splitlines() if line.strip()] == [
        "step 0: nDCG@5 0.2500, loss 3.2500 on outline/test",
        "step 2/4  loss 1.5000  12.3 pages/s  nDCG@5 0.250  left 0:00:05",
        "note: the loss has stood [at] 0.6931",
        "step 4/4  loss 1.5000  12.3 pages/s  nDCG@5 0.250  left 0:00:00",
        "step 4: nDCG@5 0.8125 on outline/test",
    ]


def test_a_terminal_sees_the_run_as_it_goes(monkeypatch):
    screen = io.StringIO()
    really = console.Console
    monkeypatch.setattr(
        console,
        "Console",
        lambda **more: really(**{**more, "file": screen, "force_terminal": True, "width": 80}),
    )
    with TrainingView(every=1) as view:
        for at, scores in ((0, (0.25, 0.75)), (2, (0.9, 0.5)), (3, (0.1, 0.3))):
            view.show(EvaluationStarts(at, 2))
            for name, score in zip(("a", "b"), scores, strict=True):
                view.show(EvaluationResult(at, result(name, score), 3.25, 1.0))
        for number, loss in ((1, 4.0), (2, 2.0), (3, 3.0)):
            view.show(step(number, loss))
        shown = really(file=io.StringIO(), width=80)
        shown.print(view._panel())
    lines = [line.rstrip() for line in shown.file.getvalue().splitlines()]
    assert lines[:4] == [
        "loss    3.0000  █▁▅",  # 4 is the highest, 2 the lowest, 3 half-way
        "step    lr 1.00e-03   gradient norm 0.500",
        "batch   32 candidates a query   12.3 pages/s",
        "nDCG@5  0.200   best 0.700 after step 2",  # means over both data sets
    ]
    assert lines[4].startswith("training")
    assert "3/4" in lines[4]
    assert "step 2: nDCG@5 0.5000, loss 3.2500 on b" in screen.getvalue()
    assert "step 3/4" not in screen.getvalue()  # plain lines are for where there is no terminal


@pytest.mark.parametrize(
    ("values", "width", "line"),
    [
        ([], 8, ""),
        ([1.0], 8, ""),
        ([1.0, 1.0], 8, "▁▁"),
        ([0.0, 7.0, 3.0], 8, "▁█▄"),
        ([0, 0, 7, 7, 3, 3], 3, "▁█▄"),
        ([1.0, float("nan")], 8, "▁▁"),
    ],
)
def test_a_curve_in_one_line(values, width, line):
    assert console.sparkline(values, width) == line


def test_a_document_is_alone_on_stdout(capsys):
    console.print_json({"größe": [1, 0.5]})
    captured = capsys.readouterr()
    assert captured.out == '{\n  "größe": [\n    1,\n    0.5\n  ]\n}\n'
    assert captured.err == ""
