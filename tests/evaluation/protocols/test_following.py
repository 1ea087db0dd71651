import pytest
import torch

from coltrain.errors import UsageError
from coltrain.evaluation.protocols.following import (
    record_of,
    refuse_contradictions,
    under_protocol,
    warning_of,
)
from coltrain.evaluation.protocols.protocol import DEFAULT, protocol_named

TWICE = protocol_named("mteb-2.12.15+engine-0.3.12")
SAME = protocol_named("mteb-1.38.34+engine-0.3.12")


def test_a_protocol_s_text_takes_the_place_of_the_model_s(tiny_retriever):
    used = under_protocol(tiny_retriever, TWICE)
    tokenizer = tiny_retriever.built.preparer.tokenizer
    text = "Query: Query: red" + "<|endoftext|>" * 20
    assert used.query_ids("red") == tokenizer(text, add_special_tokens=False)["input_ids"]
    assert len(used.query_ids("red")) > len(tiny_retriever.query_ids("red")) + 10
    assert used.built.model is tiny_retriever.built.model
    [mine], [theirs] = tiny_retriever.encode_queries(["red"]), used.encode_queries(["red"])
    assert len(theirs) > len(mine)


def test_a_protocol_with_the_model_s_own_text_changes_nothing(tiny_retriever):
    assert under_protocol(tiny_retriever, SAME) is tiny_retriever
    assert under_protocol(tiny_retriever, DEFAULT) is tiny_retriever
    record = record_of(SAME, tiny_retriever, tiny_retriever, ["red", "blue"])
    assert (record["queries"], record["queries_with_other_tokens"]) == (2, 0)
    assert warning_of(record) is None


def test_what_changed_is_counted_recorded_and_said(tiny_retriever):
    used = under_protocol(tiny_retriever, TWICE)
    record = record_of(TWICE, tiny_retriever, used, ["red", "blue", "green"])
    assert record["template"] == "mteb-2.12.15+engine-0.3.12"
    assert record["model_template"] == "engine-0.3.12"
    assert record["queries_with_other_tokens"] == record["queries"] == 3
    assert record["pages_with_other_tokens"] is False
    assert record["weights_dtype"] == str(torch.float32).removeprefix("torch.")
    assert warning_of(record) == (
        "mteb-2.12.15+engine-0.3.12 sends other text than the model was trained with "
        "(mteb-2.12.15+engine-0.3.12, not engine-0.3.12): 3 of 3 queries are read with other "
        "tokens, and scores may be lower for it"
    )


def test_a_template_beside_a_protocol_must_be_its_own():
    refuse_contradictions(SAME, "engine-0.3.12", None)
    refuse_contradictions(SAME, "colqwen2-engine-0.3.4", None)  # another name of it
    refuse_contradictions(DEFAULT, "engine-0.3.13", "float16")
    with pytest.raises(UsageError) as caught:
        refuse_contradictions(SAME, "engine-0.3.13", None)
    assert caught.value.code == "template-against-protocol"
    assert caught.value.received == "engine-0.3.13 beside mteb-1.38.34+engine-0.3.12"


def test_a_protocol_that_scores_in_bfloat16_takes_no_other_weights():
    vidore = protocol_named("vidore-benchmark-5.0")
    refuse_contradictions(vidore, None, None)
    refuse_contradictions(vidore, None, "bfloat16")
    with pytest.raises(UsageError, match="expected  bfloat16"):
        refuse_contradictions(vidore, None, "float32")
