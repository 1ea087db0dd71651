"""Put the figures of the seed study where the documents say them.

    coltrain study seed-study --yes
    python scripts/write_seed_study.py studies/seed-study

Copies what the study found into the package, where `coltrain compare` cites it, its tables to
docs/explanation/why-84.md, and what `compare` then says of issue 84 to docs/explanation/issue-84.md.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
SHIPPED = ROOT / "src/coltrain/reproduction/study/shipped/seed-study.json"
PAGE = ROOT / "docs" / "explanation" / "why-84.md"
REPORT = ROOT / "docs" / "explanation" / "issue-84.md"
COMPARE = ["compare", "examples/issue-84", "published:vidore/colqwen2-v0.1"]
BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("study", type=Path, help="Folder of the study.")
    folder = parser.parse_args().study
    document = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    SHIPPED.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    tables = (folder / "table.md").read_text(encoding="utf-8").strip()
    PAGE.write_text(f"{before}{BEGIN}\n\n{tables}\n\n{END}{after}", encoding="utf-8")
    command = [sys.executable, "-m", "coltrain", *COMPARE]
    report = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    before, fence, rest = REPORT.read_text(encoding="utf-8").partition("```text\n")
    REPORT.write_text(before + fence + report + rest[rest.index("```") :], encoding="utf-8")


if __name__ == "__main__":
    main()
