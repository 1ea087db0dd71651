"""Put the figures of the seed study where the documents say them.

    coltrain study seed-study --yes
    python scripts/write_seed_study.py studies/seed-study

Copies what the study found to benchmarks/, and into the package, where `coltrain compare` cites it, and
its tables to docs/explanation/why-84.md.
"""

import argparse
import json
from pathlib import Path

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benchmarks" / "seed_study_cpu_2026-11-24.json"
SHIPPED = ROOT / "src/coltrain/reproduction/study/shipped/seed-study.json"
PAGE = ROOT / "docs" / "explanation" / "why-84.md"
BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("study", type=Path, help="Folder of the study.")
    folder = parser.parse_args().study
    document = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    for file in (RESULT, SHIPPED):
        file.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    tables = (folder / "table.md").read_text(encoding="utf-8").strip()
    PAGE.write_text(f"{before}{BEGIN}\n\n{tables}\n\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
