import base64
import hashlib
import json
import os
import re
import shlex
import shutil
import socket

import pytest
from report_reader import markdown_tables, read_page
from run_on_paper import cut, facts_of, fingerprint, write_run
from small_pages import small_collection

from coltrain.errors import RunError
from coltrain.recipe import load_recipe, result_hash
from coltrain.reproduction.report import report_markdown, write_report
from coltrain.training.run_folder import OWN_ENTRIES, write_json

NASTY = "<script>alert('x')</script> \"><img src=//evil.example/x onerror=alert(1)> & `|` *b* ]("


# The page by itself


def test_the_page_asks_for_nothing_from_anywhere(page):
    asking = {"src", "href", "srcset", "action", "data", "poster", "xlink:href", "formaction"}
    asked = [
        value
        for _, attributes in page.elements
        for name, value in attributes.items()
        if name in asking
    ]
    assert len([value for value in asked if value.startswith("data:image/jpeg;base64,")]) > 5
    assert {value[0] for value in asked if not value.startswith("data:image/")} == {"#"}
    assert re.findall(r"url\(([^)]*)\)", page.style) == ["#hatch"]
    assert "@import" not in page.style
    assert not page.all("link")
    assert "://" not in page.source
    assert not re.search(r"fetch|XMLHttp|import|eval", page.scripts[0])


def test_the_page_lets_only_its_own_script_run(page):
    [policy] = [m["content"] for m in page.all("meta") if "http-equiv" in m]
    [script] = page.scripts
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert not any(name.startswith("on") for _, found in page.elements for name in found)


def test_elements_are_closed_and_ids_are_unique_and_known(page):
    assert page.unclosed == []
    ids = [found["id"] for _, found in page.elements if "id" in found]
    assert len(ids) == len(set(ids))
    referred = [word[1:] for found in page.all("a") for word in [found["href"]]]
    referred += [
        word for _, found in page.elements for word in found.get("aria-labelledby", "").split()
    ]
    assert len(referred) > 15
    assert set(referred) <= set(ids)


def test_every_drawing_has_words_and_every_table_can_be_scrolled_by_keyboard(page):
    drawings = [found for found in page.all("svg") if found.get("role") == "img"]
    assert len(drawings) == 4 + 2
    assert len(page.all("title")) == 1 + len(drawings)
    assert len(page.all("desc")) == len(drawings)
    assert all(found["aria-hidden"] for found in page.all("svg") if "role" not in found)
    boxes = [found for found in page.all("div") if found.get("class") == "scroll"]
    assert len(boxes) >= len(page.tables)
    assert all(box["tabindex"] == "0" and box["aria-label"] for box in boxes)
    assert all(found["alt"] for found in page.all("img"))


def test_the_page_has_both_colour_schemes_and_fits_a_phone(page):
    assert "@media (prefers-color-scheme: dark)" in page.style
    light, dark = page.style.split("prefers-color-scheme: dark")
    names = set(re.findall(r"(--[a-z0-9-]+):\s*#", light))
    assert names == set(re.findall(r"(--[a-z0-9-]+):\s*#", dark.split("img {")[0]))
    assert {"content": "width=device-width, initial-scale=1", "name": "viewport"} in page.all(
        "meta"
    )


def test_readings_for_the_pointer_are_values_of_the_run(page):
    readings = [
        json.loads(found["data-readings"]) for found in page.all("svg") if "data-readings" in found
    ]
    last = [chart[-1][1] for chart in readings]
    assert len(last) == 4
    assert all(text.startswith("step 12 · 384 pages · ") for text in last)
    assert "evaluation 2" in last[1]


# What it says


def test_headline_and_figures_are_those_of_the_files(page, finished_run):
    before, final = (
        json.loads((finished_run / "evaluation" / f"{name}.json").read_text())["results"][0]
        for name in ("before", "final")
    )
    low, high = before["measures"]["nDCG@5"], final["measures"]["nDCG@5"]
    assert high > low
    assert (
        f"before training: {100 * low:.1f} → after training: {100 * high:.1f}"
        in page.text.replace("  ", " ")
    )
    assert f"+{100 * (high - low):.1f} after training" in page.text
    assert "12 steps over 384 pages took nDCG@5 from" in page.text
    assert "✓ finished" in page.text
    assert "1 min 10 s evaluations included" in page.text
    [_, row] = page.tables["nDCG@5 × 100 of each data set, and queries that moved"]
    assert row[:5] == ["small", "9", "9", f"{100 * low:.1f}", f"{100 * high:.1f}"]
    moved = [
        final["per_query"][q]["nDCG@5"] - before["per_query"][q]["nDCG@5"]
        for q in final["per_query"]
    ]
    counts = [sum(m > 0 for m in moved), moved.count(0), sum(m < 0 for m in moved)]
    assert list(map(int, row[7:10])) == counts


def test_the_interval_of_the_change_holds_the_change(page):
    rows = page.tables["All measures × 100 on small"][1:]
    assert [row[0] for row in rows][:2] == ["nDCG@1", "nDCG@5"]
    for row in rows:
        low, high = (float(part.replace("−", "-").strip("±")) for part in row[4].split(" to "))
        assert low <= float(row[3].replace("−", "-").strip("±")) <= high


def test_an_evaluation_that_changed_nothing_says_so(tmp_path):
    run = write_run(tmp_path / "run")
    before = json.loads((run / "evaluation" / "before.json").read_text())
    (run / "evaluation" / "final.json").write_text(json.dumps({**before, "step": 12}))
    page = read_page(write_report(run))
    [_, row] = page.tables["nDCG@5 × 100 of each data set, and queries that moved"]
    assert row[5:] == ["±0.0", "±0.0 to ±0.0", "0", "9", "0", ""]


def test_the_gallery_shows_what_should_have_won_and_what_did(page, finished_run):
    document = json.loads((finished_run / "evaluation/illustrations/final.json").read_text())
    [shown] = document["illustrations"]
    misses = [one for one in shown["gallery"] if one["rank"] > 1]
    assert misses
    assert page.text.count("✗ miss") == len(misses)
    assert page.text.count("✓ hit") == len(shown["gallery"]) - len(misses)
    for one in misses:
        assert f"{one['text']} ✗ miss rank {one['rank']}, before training" in page.text
    assert len(page.all("img")) == len(shown["gallery"]) + len(misses)


def test_differences_from_the_shipped_recipe_and_hashes_are_there(page):
    assert "1 difference from the shipped recipe tiny, all of which can move" in page.text
    table = page.tables["Differences from the recipe tiny"]
    assert table[1] == ["train.steps", "60", "12", "yes"]
    hashes = {row[0]: row[1] for row in page.tables["Hashes"]}
    assert hashes["result hash"] == result_hash(load_recipe("tiny", ["train.steps=12"]))
    assert hashes["projection at the start"] == "cab02b636054892c"


def test_a_recipe_of_ones_own_is_compared_with_the_nearest_shipped_one(tmp_path):
    recipe = load_recipe("colqwen2-v1.0", ["name=mine", "train.steps=12", "batch.chunk_size=2"])
    page = read_page(write_report(write_run(tmp_path / "run", recipe=recipe)))
    assert "from colqwen2-v1.0, of the shipped recipes the one most like it" in page.text
    assert "coltrain train recipe.yaml --device cpu --out runs/mine-again" in page.text
    assert "Save the recipe above as recipe.yaml first." in page.text


def test_the_command_that_runs_it_again_gives_the_same_recipe(tmp_path):
    overrides = ["train.steps=12", "data.train=['a b/ü', ./c]", "loss.temperature=0.05"]
    recipe = load_recipe("tiny", overrides)
    run = write_run(tmp_path / "run", recipe=recipe, commit="a1b2c3")
    text = report_markdown(run)
    [command] = re.findall(r"^coltrain train .*$", text, re.MULTILINE)
    words = shlex.split(command)
    end = words.index("--device")
    assert words[:3] == ["coltrain", "train", "tiny"]
    assert words[end:] == ["--device", "cpu", "--out", "runs/tiny-again"]
    assert result_hash(load_recipe(words[2], words[3:end])) == result_hash(recipe)
    assert result_hash(recipe) in text
    assert "commit a1b2c3" in text


def test_deviations_warnings_and_what_was_left_out_are_said(tmp_path):
    run = write_run(
        tmp_path / "run",
        warnings=["the loss has stood still"],
        deviations=[{"what": "batch.negatives = 8", "why": "groups of eight"}],
        peak_memory_gib=14.25,
    )
    page = read_page(write_report(run))
    assert "To know first the loss has stood still" in page.text
    assert "batch.negatives = 8 : groups of eight" in page.text
    assert "14.25 GiB" in page.text
    assert ["left out", "4", "query is empty: 4"] in page.tables["What the batches were made of"]


def test_token_ids_of_the_probe_are_there_with_repeats_counted(page):
    assert "query What is it? 7 0 (× 3) — 4 tokens" in page.text
    assert "page white, 2 visual tokens 1 5 (× 2) 2 — 4 tokens" in page.text


def test_several_data_sets_have_a_mean_and_a_row_each(tmp_path):
    names = [f"set-{number}" for number in range(6)]
    collections = [small_collection(name, 5, first=7 * n) for n, name in enumerate(names)]
    run = write_run(tmp_path / "run", collections=collections)
    page = read_page(write_report(run))
    rows = page.tables["nDCG@5 × 100 of each data set, and queries that moved"][1:]
    assert [row[0] for row in rows] == names
    mean = sum(float(row[4]) for row in rows) / 6
    assert re.search(rf"to {mean:.1f} \(6 data sets \(mean\): 30 queries", page.text)
    assert "mean of 6 data sets" in page.text
    assert page.unclosed == []


def test_a_shipped_name_is_compared_with_its_own_recipe_though_another_is_nearer(tmp_path):
    overrides = ["train.steps=12", "optimizer.name=paged_adamw_8bit"]
    recipe = load_recipe("colqwen2-v100", overrides)
    text = read_page(write_report(write_run(tmp_path / "run", recipe=recipe))).text
    assert "from the shipped recipe colqwen2-v100, all of which" in text


def test_pages_that_win_many_queries_wrongly_are_named(page, tmp_path):
    run = write_run(tmp_path / "run")
    file = run / "evaluation" / "illustrations/final.json"
    document = json.loads(file.read_text())
    for place, query in enumerate(document["illustrations"][0]["queries"]):
        query |= {"winner": "hub" if place < 5 else "own", "rank": 2 if place < 4 else 1}
    file.write_text(json.dumps(document))
    text = read_page(write_report(run)).text
    assert "Pages that come first for many queries they do not answer: hub (4 queries)." in text
    assert "they do not answer" not in page.text


def test_what_the_check_of_the_data_found_is_told(tmp_path):
    found = [
        {"row": n, "page": f"p{n}", "query": None, "kind": "truncated", "message": f"<cut {n}>"}
        for n in range(40)
    ]
    check = {
        "pages_read": 1234,
        "left_out": {"truncated": 40},
        "converted": {"cmyk": 3},
        "share_left_out": 0.0321,
        "negatives_left_out": 2,
        "hard_negatives": {"rows": 90, "fewer": 7, "none": 0},
    }
    run = write_run(tmp_path / "run", data={"train": [fingerprint("some", 100) | {"check": check}]})
    write_json(run / "data_check.json", {"train": [check | {"rows": found}], "eval": []})
    page = read_page(write_report(run))
    assert "1,234 pages decoded. Of a data set at most 3.2% was left out." in page.text
    assert page.tables["What the check of the data found"][1:] == [
        ["train", "some", "truncated", "left out", "40"],
        ["train", "some", "cmyk", "used, converted", "3"],
        ["train", "some", "hard negative on a broken page", "left out", "2"],
        ["train", "some", "row with fewer hard negatives than asked", "used, some twice", "7"],
    ]
    listed = page.tables["The first 30 left out; data_check.json has 40"]
    assert len(listed) == 31
    assert listed[2] == ["train", "some", "truncated", "1", "p1", "–", "<cut 1>"]
    for rows in (listed, page.tables["What the check of the data found"]):
        assert rows in markdown_tables((run / "report.md").read_text(encoding="utf-8"))
    cut(run / "data_check.json", 100)
    assert "data_check.json cannot be read; it is left out" in read_page(write_report(run)).text


def test_each_source_of_a_mixture_has_a_curve_of_its_loss(page, tmp_path):
    run = write_run(tmp_path / "run")
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        if line["kind"] == "step":
            line["by_source"] = {"a": {"rows": 20, "loss": 1.5}, "b": {"rows": 12, "loss": 2.5}}
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    text = read_page(write_report(run)).text
    assert "Loss by source a b" in text
    assert "b: 2.5 at step 1, 2.5 at step 12" in text
    assert "Loss by source" not in page.text


# Its twin


def test_page_and_twin_have_the_same_tables(page, finished_run):
    twin = (finished_run / "report.md").read_text(encoding="utf-8")
    of_twin = markdown_tables(twin)
    assert len(page.tables) > 10
    for caption, rows in page.tables.items():
        is_drawn = rows[0][-1] == "0100"  # the scale above the drawn scores
        expected = [row[:-1] for row in rows] if is_drawn else rows
        assert expected in of_twin, caption


def test_page_and_twin_say_the_same(page, finished_run):
    twin = (finished_run / "report.md").read_text(encoding="utf-8")
    words = " ".join(re.sub(r"[`*\\|]", " ", twin).split())
    document = json.loads((finished_run / "evaluation/illustrations/final.json").read_text())
    for one in document["illustrations"][0]["gallery"]:
        assert f" {one['text']} " in words
        assert one["text"] in page.text
    for text in ("12 steps over 384 pages", "coltrain train tiny train.steps=12", "7 0 (× 3)"):
        assert text in page.text
        assert text in words
    assert facts_of(finished_run)["recipe_yaml"] in twin
    assert report_markdown(finished_run) == twin
    assert "<" not in re.sub(r"```yaml.*?```", "", twin, flags=re.DOTALL)


def test_the_report_belongs_to_the_run_and_can_be_replaced_with_it(finished_run):
    write_report(finished_run)
    assert {entry.name for entry in finished_run.iterdir()} <= OWN_ENTRIES


# Markup


def test_markup_in_names_and_queries_is_shown_and_does_nothing(tmp_path):
    collection = small_collection(NASTY, 4)
    renamed = {f"p{n}": f"p{n}{NASTY}" for n in range(4)}
    object.__setattr__(collection, "page_ids", list(renamed.values()))
    for query in collection.queries:
        object.__setattr__(query, "text", NASTY)
        judged = collection.qrels[query.id]
        collection.qrels[query.id] = {renamed[page]: score for page, score in judged.items()}
    recipe = load_recipe("tiny", ["train.steps=12", f"description={json.dumps(NASTY)}"])
    run = write_run(
        tmp_path / "run",
        recipe=recipe,
        collections=[collection],
        warnings=[NASTY],
        stopped_by=NASTY,
        state="stopped",
        versions={NASTY: NASTY},
        deviations=[{"what": NASTY, "why": NASTY}],
        probe={"query": NASTY, "query_ids": [1], "page": NASTY, "page_ids": [2]},
    )
    page = read_page(write_report(run))
    assert page.text.count(" ".join(NASTY.split())) >= 10
    assert len(page.scripts) == 1
    assert "alert" not in page.scripts[0]
    assert not any(name.startswith("on") for _, found in page.elements for name in found)
    assert {image["src"][:15] for image in page.all("img")} == {"data:image/jpeg"}
    assert page.unclosed == []
    twin = (run / "report.md").read_text(encoding="utf-8")
    prose = re.sub(r"```yaml.*?```", "", twin, flags=re.DOTALL)
    assert "<script>" not in prose
    assert "<img" not in prose
    of_twin = markdown_tables(twin)
    for caption, rows in page.tables.items():
        is_drawn = rows[0][-1] == "0100"
        expected = [[" ".join(cell.split()) for cell in row] for row in rows]
        assert [row[:-1] for row in expected] in of_twin if is_drawn else expected in of_twin, (
            caption
        )


# Runs that did not come to their end


def test_a_killed_run_reports_what_is_there(tmp_path):
    run = write_run(tmp_path / "run", steps=8, state="running", with_pictures=False)
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "step", "step": 9, "lo')
    page = read_page(write_report(run))
    assert "✕ killed: its process is gone" in page.text
    assert "The last line of metrics.jsonl is cut off; it is left out here." in page.text
    assert "The last line of metrics was written at 20" in page.text
    assert "8 steps over 256 pages so far; by step 6, they took nDCG@5 from" in page.text
    assert "after step 6" in page.text
    assert f"coltrain resume {run}" in page.text
    assert "Gallery" not in page.text
    assert "so far" in page.text
    assert page.unclosed == []


def test_a_run_whose_process_lives_is_still_going(tmp_path):
    run = write_run(tmp_path / "run", steps=8, state="running")
    lock = run / "run.lock"
    lock.write_text(json.dumps({"pid": os.getpid(), "host": socket.gethostname()}))
    assert "▶ still going" in read_page(write_report(run)).text
    lock.write_text(json.dumps({"pid": 2**22 + 1, "host": socket.gethostname()}))
    assert "✕ killed" in read_page(write_report(run)).text
    lock.write_text(json.dumps({"pid": os.getpid(), "host": "elsewhere"}))
    assert "▶ still going, or killed" in read_page(write_report(run)).text
    lock.write_text("")
    assert "▶ still going, or killed" in read_page(write_report(run)).text


def test_a_run_stopped_before_its_first_step_has_a_report(tmp_path):
    run = write_run(tmp_path / "run", steps=0, state="stopped", stopped_by="no room on the disk")
    page = read_page(write_report(run))
    assert "■ stopped by an error" in page.text
    assert "The run ended early: no room on the disk" in page.text
    assert re.search(
        r"nDCG@5 was [\d.]+ before training \(small: 9 queries, 9 pages\); 0 steps", page.text
    )
    assert "Gallery" in page.text
    assert ", before training." in page.text
    assert "best nDCG@5" not in page.text


def test_a_folder_with_nothing_but_run_json_has_a_report(tmp_path):
    run = write_run(tmp_path / "run", steps=3, state="running")
    for file in [*(run / "evaluation").rglob("*.json"), run / "metrics.jsonl"]:
        file.unlink()
    shutil.rmtree(run / "evaluation")
    page = read_page(write_report(run))
    assert "metrics.jsonl cannot be read (No such file or directory): no curves." in page.text
    assert "0 steps over 0 pages so far; no evaluation is on record yet." in page.text
    assert page.unclosed == []


def test_the_least_that_is_a_run_has_a_report(tmp_path):
    (tmp_path / "run.json").write_text('{"result_hash": "abc"}')
    page = read_page(write_report(tmp_path))
    assert "abc" in page.text
    assert page.unclosed == []
    assert "cannot read the recipe" in page.text


def test_a_run_without_evaluation_data_says_so(tmp_path):
    recipe = load_recipe("tiny", ["train.steps=12", "eval.data=[]"])
    run = write_run(tmp_path / "run", recipe=recipe)
    for file in (run / "evaluation").rglob("*.json"):
        file.unlink()
    text = read_page(write_report(run)).text
    assert "12 steps over 384 pages, without evaluation: the recipe names no data for it." in text


@pytest.mark.parametrize("keep", [0, 1, 300, -5])
def test_an_evaluation_cut_off_is_left_out_for_the_one_before(tmp_path, keep):
    run = write_run(tmp_path / "run")
    cut(run / "evaluation" / "final.json", keep)
    cut(run / "evaluation" / "illustrations/final.json", keep)
    text = read_page(write_report(run)).text
    assert "evaluation/final.json cannot be read; it is left out here." in text
    assert "evaluation/illustrations/final.json cannot be read; it is left out here." in text
    assert "after step 6" in text


def test_pictures_of_another_form_are_left_out(tmp_path):
    run = write_run(tmp_path / "run")
    file = run / "evaluation" / "illustrations/final.json"
    for document in (
        {"illustrations": [{"dataset": "small"}]},
        {"illustrations": [{"dataset": "small", "queries": [{}], "gallery": [], "pages": {}}]},
        {"illustrations": 7},
        [],
    ):
        file.write_text(json.dumps(document))
        text = read_page(write_report(run)).text
        assert "illustrations/final.json cannot be read" in text


def test_lines_that_cannot_be_read_are_counted_and_a_repeated_step_counts_once(tmp_path):
    run = write_run(tmp_path / "run")
    lines = (run / "metrics.jsonl").read_text().splitlines()
    again = json.loads(lines[-2]) | {"loss": 7.25}
    more = ["no json", "[]", json.dumps(again), '{"kind": "step", "step": 12, "lo']
    (run / "metrics.jsonl").write_text("\n".join([*lines, *more]))
    page = read_page(write_report(run))
    assert "3 lines of metrics.jsonl cannot be read; they are left out here." in page.text
    assert ["steps taken", "12 of 12", "optimiser updates"] in page.tables[
        "What the batches were made of"
    ]
    [*_, eleventh, twelfth] = page.tables["Some steps; metrics.jsonl has them all"]
    assert (eleventh[0], twelfth[0], twelfth[2]) == ("11", "12", "7.25")


def test_a_loss_that_is_not_finite_is_left_out_of_the_curve(tmp_path):
    run = write_run(
        tmp_path / "run", steps=40, of=40, state="stopped", stopped_by="step 7 has no finite loss"
    )
    text = (run / "metrics.jsonl").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    for line in lines:
        if line["kind"] == "step" and line["step"] == 7:
            line["loss"] = line["grad_norm"] = float("nan")
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    page = read_page(write_report(run))
    lines = [found["d"] for found in page.all("path") if found.get("class") == "line"]
    points = [line.count("L") + 1 for line in lines if line != "M0 6H26"]  # that one is in keys
    assert sorted(points) == [3, 3, 39, 39, 39, 39, 40]  # two evaluated, two with a mean, the rate
    assert not any("nan" in line for line in lines)
    assert "The run ended early: step 7 has no finite loss" in page.text


def test_a_long_run_makes_a_small_page(tmp_path):
    run = write_run(tmp_path / "run", steps=6000, of=6000, num_rows=5000)
    path = write_report(run)
    assert path.stat().st_size < 400_000
    page = read_page(path)
    assert max(len(found.get("d", "")) for found in page.all("path")) < 12_000


# Folders that are no run


@pytest.mark.parametrize("content", [None, "", "{", "[]", '{"state": "finished"}'])
def test_a_folder_that_is_no_run_is_refused(tmp_path, content):
    if content is not None:
        (tmp_path / "run.json").write_text(content)
    for report in (write_report, report_markdown):
        with pytest.raises(RunError) as caught:
            report(tmp_path)
        assert str(caught.value) == (
            "RunError [not-a-run]: this folder is not a run of coltrain.\n"
            f"  received  {tmp_path}\n"
            "  expected  a folder with a run.json that coltrain wrote\n"
            "  try       coltrain train RECIPE --out FOLDER starts one"
        )
    assert not (tmp_path / "report.html").exists()


def test_a_folder_that_cannot_be_written_is_one_clear_error(tmp_path):
    run = write_run(tmp_path / "run")
    (run / "report.html").mkdir()
    with pytest.raises(RunError, match="cannot be written into the run's folder") as caught:
        write_report(run)
    assert caught.value.code == "cannot-write"
    assert caught.value.where == str(run / "report.html")
