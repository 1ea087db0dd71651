"""For sentence-transformers 6: backbone, Dense, mask and norm as modules of a `MultiVectorEncoder`.

The flat layout, not its wrapper of transformers' ColQwen2: a plain `Qwen2VLModel` computes M-RoPE,
and pages go through it in their own sizes. The template is a chat template that renders exactly its
strings: text becomes a query, an image a page, whatever the roles.
"""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from coltrain.model.build import BuiltModel
from coltrain.model.export.files import write_card, write_json, write_network, write_processor
from coltrain.model.export.merging import merged_tensors
from coltrain.model.weights import PROJECTION
from coltrain.recipe import Template

VERSION = "6.2.0"
"""Of sentence-transformers, whose form this is and with which it is tested."""

_MODULES = {
    "": "sentence_transformers.base.modules.transformer.Transformer",
    "1_Dense": "sentence_transformers.base.modules.dense.Dense",
    "2_MultiVectorMask": "sentence_transformers.multi_vector_encoder.modules.multi_vector_mask"
    ".MultiVectorMask",
    "3_Normalize": "sentence_transformers.base.modules.normalize.Normalize",
}
_IN_PLACE = {"module_input_name": "token_embeddings", "module_output_name": "token_embeddings"}


def write(built: BuiltModel, folder: Path, dtype: torch.dtype) -> list[str]:
    """A folder for `MultiVectorEncoder`.

    Args:
        built: Kept in float32.
        folder: New or empty.
        dtype: Of the weights.

    Returns:
        What a user should know.

    Source:
        sentence-transformers 6.2.0, base/modules/transformer.py, dense.py, normalize.py and
        multi_vector_encoder/modules/multi_vector_mask.py: what their `save` writes.
    """
    tensors = merged_tensors(built.model, dtype)
    backbone = {name: tensor for name, tensor in tensors.items() if not name.startswith(PROJECTION)}
    write_network(built, folder, backbone, built.model.config, "Qwen2VLModel")
    write_processor(built, folder, "Qwen2VLProcessor")
    (folder / "chat_template.jinja").write_text(
        chat_template(built.preparer.template), encoding="utf-8"
    )
    write_json(
        folder / "modules.json",
        [
            {"idx": place, "name": str(place), "path": path, "type": kind}
            for place, (path, kind) in enumerate(_MODULES.items())
        ],
    )
    output = {"method": "forward", "method_output_name": "last_hidden_state"}
    write_json(
        folder / "sentence_bert_config.json",
        {
            "transformer_task": "feature-extraction",
            "modality_config": {
                "text": output,
                "image": output,
                "message": output | {"format": "structured"},
            },
            "module_output_name": "token_embeddings",
            "unpad_inputs": False,  # Qwen2-VL does not work without padding there
        },
    )
    write_json(
        folder / "config_sentence_transformers.json",
        {
            "model_type": "MultiVectorEncoder",
            "__version__": {"sentence_transformers": VERSION},
            "prompts": {"query": "", "document": ""},
            "default_prompt_name": None,
            "similarity_fn_name": "maxsim",
        },
    )
    weight = tensors[f"{PROJECTION}.weight"]
    write_json(
        folder / "1_Dense" / "config.json",
        {
            "in_features": weight.shape[1],
            "out_features": weight.shape[0],
            "bias": True,
            "activation_function": "torch.nn.modules.linear.Identity",
            **_IN_PLACE,
        },
    )
    dense = {f"linear.{name}": tensors[f"{PROJECTION}.{name}"] for name in ("weight", "bias")}
    save_file(dense, folder / "1_Dense" / "model.safetensors", metadata={"format": "pt"})
    write_json(
        folder / "2_MultiVectorMask" / "config.json",
        {"skiplist_words": [], "skiplist_tasks": ["document"], "keep_only_token_ids": None},
    )
    write_json(folder / "3_Normalize" / "config.json", _IN_PLACE)
    write_card(built, folder, tensors)
    notes = ["text is rendered as a query and an image as a page, by chat_template.jinja"]
    if dtype != torch.float32:
        notes.append(
            "sentence-transformers keeps the Dense layer in float32 where the backbone is not: load "
            "with model_kwargs={'dtype': torch.float32}, or cast the whole model"
        )
    return notes


def chat_template(template: Template) -> str:
    """A Jinja template that renders a text as a query and an image as a page; nothing around them."""
    before, after = json.dumps(template.query_prefix), json.dumps(template.query_suffix)
    page = json.dumps(template.page_prompt)
    return (
        "{%- for message in messages -%}{%- for part in message['content'] -%}"
        "{%- if part['type'] == 'text' -%}"
        f"{{{{ {before} + part['text'] + {after} }}}}"
        "{%- else -%}"
        f"{{{{ {page} }}}}"
        "{%- endif -%}{%- endfor -%}{%- endfor -%}"
    )
