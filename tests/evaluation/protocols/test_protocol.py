import pytest

from coltrain.errors import UsageError
from coltrain.evaluation.protocols.protocol import DEFAULT, NAMED, protocol_named
from coltrain.recipe import template_named

AUG = "<|endoftext|>" * 10


def text(name: str) -> str:
    template = template_named(protocol_named(name).template)
    return template.query_prefix + "q" + template.query_suffix


# The table of docs/reference/protocols.md: first and last version of each range.
@pytest.mark.parametrize(
    ("mteb", "old_engine", "new_engine"),
    [
        ("1.38.20", "Query: q" + AUG, "q" + AUG),
        ("1.38.34", "Query: q" + AUG, "q" + AUG),
        ("1.39.7", "Query: q" + AUG, "q" + AUG),
        ("2.0.1", "Query: Query: q" + 2 * AUG, "q" + 2 * AUG),
        ("2.12.15", "Query: Query: q" + 2 * AUG, "q" + 2 * AUG),
        ("2.12.16", "Query: q" + AUG, "q" + AUG),
        ("2.19.1", "Query: q" + AUG, "q" + AUG),
        ("2.19.2", "Query: q" + AUG, "Query: q" + AUG),
        ("2.20.0", "Query: q" + AUG, "Query: q" + AUG),
    ],
)
def test_mteb_sends_what_it_and_the_engine_beside_it_make_of_a_query(mteb, old_engine, new_engine):
    for engine in ("0.3.4", "0.3.12"):
        assert text(f"mteb-{mteb}+engine-{engine}") == old_engine
    for engine in ("0.3.13", "0.3.18"):
        assert text(f"mteb-{mteb}+engine-{engine}") == new_engine


def test_mteb_pads_to_the_longest_page_and_reads_what_it_read_then():
    old, new = protocol_named(NAMED[0]), protocol_named("mteb-2.19.2")
    for protocol in (old, new):
        assert (protocol.score_dtype, protocol.padding) == ("float32", "corpus")
        assert (protocol.duplicates, protocol.model_dtype) == ("all-pages", "float16")
    assert (old.edition, new.edition) == ("beir", "mteb")
    assert protocol_named("mteb-2.7.28+engine-0.3.13").edition == "beir"
    assert protocol_named("mteb-2.7.29+engine-0.3.13").edition == "mteb"


def test_vidore_benchmark_scores_in_bfloat16_blocks_with_the_page_of_the_last_row():
    protocol = protocol_named("vidore-benchmark-5.0")
    assert protocol == protocol_named("vidore-benchmark-5.0")
    assert (protocol.score_dtype, protocol.padding) == ("bfloat16", "block")
    assert (protocol.duplicates, protocol.edition) == ("last-row", "qa")
    assert text("vidore-benchmark-5.0") == "Query: q" + AUG
    assert text("vidore-benchmark-5.0.0+engine-0.3.8") == "Query: q" + AUG
    assert text("vidore-benchmark-5.0+engine-0.3.13") == "q" + AUG


def test_the_default_is_the_model_s_own():
    assert protocol_named("coltrain") is DEFAULT
    assert DEFAULT.template is None
    assert DEFAULT.record() == {
        "name": "coltrain",
        "template": None,
        "score_dtype": "float32",
        "padding": "masked",
        "duplicates": "all-pages",
        "edition": None,
        "model_dtype": None,
    }


@pytest.mark.parametrize("name", NAMED)
def test_the_published_protocols_are_there(name):
    assert protocol_named(name).name == name


@pytest.mark.parametrize(
    ("name", "code", "part"),
    [
        ("mteb-2.12.15", "protocol-without-engine", "mteb-2.12.15+engine-0.3.13 (no prefix)"),
        ("mteb-2.21.0", "protocol-version", "mteb 1.38.20 to 1.39.7, or mteb 2.0.1 to 2.20.0"),
        ("mteb-1.50.0+engine-0.3.12", "protocol-version", "mteb 1.38.20 to 1.39.7"),
        ("mteb-1.38.16+engine-0.3.12", "protocol-version", "mteb 1.38.20 to"),
        ("mteb-2.19.2+engine-0.4.0", "protocol-version", "engine 0.3.4 to 0.3.18"),
        ("mteb-1.38.34+engine-0.3.3", "protocol-version", "engine 0.3.4 to 0.3.18"),
        ("vidore-benchmark-4.0.2", "protocol-version", "vidore-benchmark 5.0 to 5.0.0"),
        ("vidore-benchmark-5.0+engine-0.3.7", "protocol-version", "engine 0.3.8 to 0.3.18"),
        ("mteb2.19.2", "unknown-protocol", "try       mteb-2.19.2"),
        ("vidore-benchmark", "unknown-protocol", "try       vidore-benchmark-5.0"),
        ("engine-0.3.12", "unknown-protocol", "mteb-X.Y.Z+engine-A.B.C"),
        ("mteb-latest", "unknown-protocol", "mteb-X.Y.Z+engine-A.B.C"),
        ("", "unknown-protocol", "mteb-X.Y.Z+engine-A.B.C"),
    ],
)
def test_what_nobody_has_looked_at_is_no_protocol(name, code, part):
    with pytest.raises(UsageError) as caught:
        protocol_named(name)
    assert caught.value.code == code
    assert part in str(caught.value)
