"""The network: Qwen2-VL's vision tower and language model, and a projection to 128 dimensions.

The two towers are transformers' own modules; the forward pass is ours, because what sits between
them decides whether a reproduction is one: explicit M-RoPE positions, a vision tower that is never
trained by accident, a norm with an eps, a mask that cannot let a NaN through.
"""

from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import Qwen2VLConfig, Qwen2VLModel

from coltrain.model.attention import ATTENTION, knows_lengths
from coltrain.model.dropout import ACCELERATOR_HASHES, SampleKeys
from coltrain.model.feed_forward import ACCELERATOR_NUMBERS, FeedForward
from coltrain.model.packing import Packing, cut
from coltrain.model.rms_norm import RmsNorm
from coltrain.model.vision_feed_forward import VisionFeedForward

CPU_PATCHES = 2048
ACCELERATOR_PATCHES = 16384
"""Of the pages that a frozen vision tower sees in one pass: enough for full matrix products. What a
layer makes on the way is then of a page or two, whatever the chunk."""

KEPT_LAYERS = 2
"""Last layers of the language model that are not computed again where the others are."""


class ColQwen2(nn.Module):
    """Pages and queries to multi-vector embeddings.

    Children are named as colpali-engine names them (`visual`, `language_model`,
    `custom_text_proj`), so that its LoRA target expression and its adapters fit.

    Args:
        config: transformers' configuration of the backbone; attention is set to our own
            (`coltrain.model.attention`), since eager attention overflows in float16 and gave NaN in
            float64 with padding.
        dim: Size of a token's vector.
    """

    def __init__(self, config: Qwen2VLConfig, dim: int = 128) -> None:
        super().__init__()
        for part in (config, config.text_config, config.vision_config):
            part._attn_implementation = ATTENTION
        backbone = Qwen2VLModel(config)
        self.config = config
        self.dim = dim
        self.visual = backbone.visual
        self.visual.patch_embed = PatchProjection(backbone.visual.patch_embed)
        for block in self.visual.blocks:
            block.mlp = VisionFeedForward(block.mlp)
        self.language_model = backbone.language_model
        for layer in self.language_model.layers:
            layer.mlp = FeedForward(layer.mlp)
            layer.input_layernorm = RmsNorm(layer.input_layernorm)
            layer.post_attention_layernorm = RmsNorm(layer.post_attention_layernorm)
        self.language_model.norm = RmsNorm(self.language_model.norm)
        self.custom_text_proj = nn.Linear(config.text_config.hidden_size, dim)
        self.sample_keys = SampleKeys()
        self.patches_per_pass: int | None = (
            None  # of a frozen vision tower; None as the device likes
        )
        # Set by `coltrain.model.half`: a half type of the network's own scope, and what is outside.
        self.computes_in: torch.dtype | None = None
        self.kept_in_float32: tuple[str, ...] = ()

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.custom_text_proj.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """Storage type of the backbone's weights, but for modules kept in float32."""
        return self.computes_in or self.language_model.embed_tokens.weight.dtype

    def _scope(self) -> AbstractContextManager:
        if self.computes_in is None:
            return nullcontext()
        return torch.autocast(self.device.type, self.computes_in)

    @property
    def vision_is_frozen(self) -> bool:
        """Whether no parameter of the vision tower is trained."""
        return not any(parameter.requires_grad for parameter in self.visual.parameters())

    @property
    def is_checkpointed(self) -> bool:
        """Whether the language model's layers are computed again in the backward pass."""
        return any(layer.gradient_checkpointing for layer in self.language_model.layers)

    def checkpoint_activations(self, kept_layers: int | None = None) -> None:
        """Recompute the language model's layers in the backward pass instead of keeping them.

        But for the last ones: what they keep is needed first when the backward pass begins. The very
        last costs a chunk no memory that it would not take when computed again. Of the others the
        widest part is computed again all the same (`FeedForward.is_made_again`).

        Only the language model: transformers' own switch also hooks the vision tower's input,
        which doubles a step for nothing when that tower is frozen.

        Args:
            kept_layers: How many of the last layers are kept; None for two, but half of them at most.
        """
        num_layers = len(self.language_model.layers)
        if kept_layers is None:
            kept_layers = layers_kept(num_layers)
        tower = self.language_model
        if hasattr(tower, "activation_checkpointing_enable"):
            tower.activation_checkpointing_enable({"use_reentrant": False})
        else:  # its name in transformers before 5.23
            tower.gradient_checkpointing_enable({"use_reentrant": False})
        # The switch above hooks the input embeddings so that they require gradients, which only
        # re-entrant checkpointing needs.
        self.language_model.disable_input_require_grads()
        for number, layer in enumerate(tower.layers):
            layer.gradient_checkpointing = number < num_layers - kept_layers
            layer.mlp.is_made_again = number < num_layers - min(1, kept_layers)
        # Layers checkpoint in training mode only. No module of the language model acts otherwise
        # by mode: its own dropout is 0, and LoRA's is keyed.
        self.language_model.train()

    def cut_for_accelerator(self) -> None:
        """Cut work as on an accelerator wherever the tensors are; the planner's are nowhere."""
        self.patches_per_pass = ACCELERATOR_PATCHES
        self.sample_keys.hashes_per_block = ACCELERATOR_HASHES
        for part in self.language_model.modules():
            if isinstance(part, FeedForward | RmsNorm):
                part.numbers_per_block = ACCELERATOR_NUMBERS

    def encode_vision(
        self,
        pixel_values: Float[Tensor, "patches patch_dim"],
        grid_thw: Int[Tensor, "pages 3"],
    ) -> Float[Tensor, "visual_tokens hidden"]:
        """Visual tokens of several pages, end to end, without their padding (there is none).

        Args:
            pixel_values: Flat patches of all pages, in order.
            grid_thw: Each page's patches along time, height and width.

        Returns:
            Merged visual tokens of all pages, in order; without a graph if the tower is frozen.
        """
        if not self.vision_is_frozen:
            return self._see(pixel_values, grid_thw)
        counts = grid_thw.prod(dim=1).tolist()
        limit = self.patches_per_pass
        if limit is None:
            limit = CPU_PATCHES if pixel_values.device.type == "cpu" else ACCELERATOR_PATCHES
        seen, first = [], 0
        with torch.no_grad():
            for pages in cut(counts, limit):
                patches = sum(counts[pages])
                seen.append(self._see(pixel_values[first : first + patches], grid_thw[pages]))
                first += patches
        return torch.cat(seen) if len(seen) > 1 else seen[0]

    def _see(self, pixel_values: Tensor, grid_thw: Tensor) -> Tensor:
        with self._scope():
            return self.visual(pixel_values.to(self.visual.dtype), grid_thw=grid_thw).pooler_output

    def packing(self, mask: Bool[Tensor, "samples tokens"]) -> Packing:
        """Where the samples of a padded batch end.

        Raises:
            ValueError: It is not padded on the right.
        """
        return Packing.of(mask)

    def hidden_states(
        self,
        input_ids: Int[Tensor, "samples tokens"],
        position_ids: Int[Tensor, "3 samples tokens"],
        packing: Packing,
        visual_tokens: Float[Tensor, "visual_tokens hidden"] | None = None,
    ) -> Float[Tensor, "1 total hidden"]:
        """Last hidden states of the language model: the real tokens of all samples in one row.

        A token sees those before it in its own sample and no others, so that a sample's states do
        not depend on what stands beside it.

        Raises:
            ValueError: The number of visual tokens is not that of image placeholders.
        """
        row = packing.pack(input_ids)
        embeddings = self.language_model.embed_tokens(row)
        if visual_tokens is not None:
            is_visual = row == self.config.image_token_id
            self.refuse_other_count(is_visual, visual_tokens)
            wider = torch.promote_types(embeddings.dtype, visual_tokens.dtype)
            embeddings = embeddings.to(wider).masked_scatter(
                is_visual[:, :, None], visual_tokens.to(wider)
            )
        self.sample_keys.lay_out(packing.lengths)
        with self._scope():
            if not knows_lengths(self.language_model.config._attn_implementation):
                # Another library's kernel, to compare with: it takes samples side by side. Under
                # causal attention no real token sees the padding on its right.
                return packing.pack(
                    self.language_model(
                        inputs_embeds=packing.unpack(embeddings),
                        position_ids=position_ids,
                        use_cache=False,
                    ).last_hidden_state
                )
            output = self.language_model(
                inputs_embeds=embeddings,
                # transformers need not make masks: `lengths` tells our attention where samples end.
                attention_mask=dict.fromkeys(self.config.text_config.layer_types),
                position_ids=packing.pack(position_ids.permute(1, 2, 0)).permute(2, 0, 1),
                use_cache=False,
                lengths=packing.lengths,
            )
        return output.last_hidden_state

    def refuse_other_count(
        self,
        is_visual: Bool[Tensor, "1 total"],
        visual_tokens: Float[Tensor, "visual_tokens hidden"],
    ) -> None:
        """Check that every placeholder gets its visual token.

        Raises:
            ValueError: There are more of one than of the other.
        """
        num_places = int(is_visual.sum())
        if num_places != len(visual_tokens):
            raise ValueError(
                f"{len(visual_tokens)} visual tokens for {num_places} image placeholders"
            )

    def forward(
        self,
        input_ids: Int[Tensor, "samples tokens"],
        mask: Bool[Tensor, "samples tokens"],
        position_ids: Int[Tensor, "3 samples tokens"],
        visual_tokens: Float[Tensor, "visual_tokens hidden"] | None = None,
    ) -> Float[Tensor, "samples tokens dim"]:
        """Multi-vector embeddings: one unit vector for each real token, zero where padded.

        Args:
            input_ids: Token ids, padded on the right.
            mask: True at real tokens.
            position_ids: M-RoPE positions on the axes of time, height and width.
            visual_tokens: What `encode_vision` returned for these samples; None for queries.

        Returns:
            Embeddings in float32, or in float64 if the model is.

        Source:
            colpali-engine 0.3.18, models/qwen2/colqwen2/modeling_colqwen2.py. Ours normalises in
            float32 and with an eps, and computes nothing where padded: there, a zero vector at a
            padded place gives NaN that multiplication with the mask does not remove.
        """
        packing = self.packing(mask)
        projected = self.custom_text_proj(
            self.hidden_states(input_ids, position_ids, packing, visual_tokens)
        )
        projected = projected.to(torch.promote_types(projected.dtype, torch.float32))
        return packing.unpack(F.normalize(projected, dim=-1, eps=1e-12))


def layers_kept(num_layers: int) -> int:
    """How many last layers checkpointing leaves alone: two, but half of all at most."""
    return min(KEPT_LAYERS, num_layers // 2)


class PatchProjection(nn.Module):
    """The vision tower's patch embedding as one matrix product.

    The original is a convolution whose kernel covers the whole patch and meets each patch once,
    which is a matrix product that convolution libraries compute slowly. Same weights, same names.
    """

    def __init__(self, patch_embed: nn.Module) -> None:
        super().__init__()
        self.proj = patch_embed.proj

    def forward(
        self, patches: Float[Tensor, "patches patch_dim"]
    ) -> Float[Tensor, "patches embed_dim"]:
        """Project flat patches."""
        weight = self.proj.weight
        return F.linear(patches.view(patches.shape[0], -1), weight.view(weight.shape[0], -1))
