"""Write src/coltrain/data/drawn/text.txt.gz: the words that the drawn pages are made of.

The text is CPython's own documentation as every interpreter carries it (the topics of `help()` and
the docstrings of the standard library), under the Python licence that stands beside it. It is kept
as a file because it differs from one Python version to the next; the shipped one is of 3.11.7.

    python scripts/make_drawn_text.py        # on Python 3.11.7 it changes nothing
"""

import ast
import gzip
import pydoc_data.topics
import re
import sysconfig
from pathlib import Path

TARGET = Path(__file__).parents[1] / "src/coltrain/data/drawn/text.txt.gz"
LEFT_OUT = {"site-packages", "test", "tests", "idlelib", "lib2to3", "__pycache__", "turtledemo"}
# `_pyio` repeats `io`, `_pydatetime` repeats `datetime`, and so on.
LEFT_OUT_FILES = {"_pyio.py", "_pydatetime.py", "_pydecimal.py", "_py_abc.py"}
WORD = re.compile(r"[(]?[A-Za-z][A-Za-z'\-]*[.,;:)]?[.,]?|\d{1,4}[.,]?")
LONGEST_WORD = 14  # longer ones would not fit on a line of a small page
SHORTEST_DOCUMENT = 60  # words


def documents() -> list[str]:
    """Raw texts: one for each help topic and each module's docstrings."""
    texts = [pydoc_data.topics.topics[name] for name in sorted(pydoc_data.topics.topics)]
    library = Path(sysconfig.get_paths()["stdlib"])
    for file in sorted(library.rglob("*.py")):
        inside = file.relative_to(library)
        if LEFT_OUT.intersection(inside.parts) or inside.name in LEFT_OUT_FILES:
            continue
        try:
            tree = ast.parse(file.read_text(encoding="utf-8"))
        except (SyntaxError, UnicodeDecodeError):
            print(f"left out, not parseable: {inside}")
            continue
        kinds = ast.Module | ast.ClassDef | ast.FunctionDef
        docstrings = [ast.get_docstring(node) for node in ast.walk(tree) if isinstance(node, kinds)]
        texts.append("\n".join(text for text in docstrings if text))
    return texts


def words_of(text: str) -> list[str]:
    """Words and short numbers; markup and identifiers fall out."""
    stripped = (re.sub(r"[^A-Za-z0-9.,;:()'\-]", "", word) for word in text.split())
    return [word for word in stripped if WORD.fullmatch(word) and len(word) <= LONGEST_WORD]


def main() -> None:
    """Write the file; equal input gives equal bytes."""
    kept = [words for text in documents() if len(words := words_of(text)) >= SHORTEST_DOCUMENT]
    content = "\n".join(" ".join(words) for words in kept) + "\n"
    TARGET.write_bytes(gzip.compress(content.encode("ascii"), compresslevel=9, mtime=0))
    print(f"{len(kept)} documents, {sum(map(len, kept))} words, {TARGET.stat().st_size} bytes")


if __name__ == "__main__":
    main()
