"""What does padding cost the language model, and how much of it is computed?

Uneven pages, their vision features at hand, without a graph: coltrain's packed row, the same pages
one by one, and padded to the longest as other libraries run them (transformers' attention).
"""

import torch
from alternating import arguments, finish, measured
from small_model import chunks, small_batch, small_model


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--chunk", type=int, default=8, help="pages in one forward pass")
    given = parser.parse_args()
    model = small_model(0.0).to(given.device)
    batch = small_batch(given.batch)
    sees = {"packed": given.chunk, "one by one": 1, "padded": given.chunk}
    made = {name: _pages(model, batch, size, given.device) for name, size in sees.items()}
    tokens: dict[str, list[int]] = {name: [] for name in sees}
    vectors = {}

    def way(name):
        implementation = "sdpa" if name == "padded" else "coltrain_sdpa"

        def run():
            model.language_model.config._attn_implementation = implementation
            tokens[name].clear()
            found = []
            with torch.inference_mode():
                for inputs, visual in made[name]:
                    out = model(inputs.input_ids, inputs.mask, inputs.position_ids, visual)
                    found.append(out[inputs.mask])
            vectors[name] = torch.cat(found)

        return run

    def count(layer, args):
        current.append(args[0].shape[:2].numel())

    current: list[int] = []
    layer = model.language_model.layers[0].register_forward_pre_hook(count)
    for name in sees:
        current.clear()
        way(name)()
        tokens[name] = list(current)
    layer.remove()
    computed = {name: sum(found) for name, found in tokens.items()}
    forwards = {name: len(found) for name, found in tokens.items()}
    ways = {name: way(name) for name in sees}
    seconds = measured(ways, given.rounds, given.device, warm=True)
    best = {name: one["best_seconds"] for name, one in seconds.items()}
    figures = {
        "pages": given.batch,
        "real_tokens": batch.num_page_tokens,
        "tokens_computed_by_real_ones": {
            name: found / batch.num_page_tokens for name, found in computed.items()
        },
        "forwards_by_pages": {name: found / given.batch for name, found in forwards.items()},
        "largest_difference_to_one_by_one": {
            name: (vectors[name] - vectors["one by one"]).abs().max().item()
            for name in ("packed", "padded")
        },
        "seconds": seconds,
        "times_the_packed_row": {name: found / best["packed"] for name, found in best.items()},
    }
    finish(__doc__.splitlines()[0], figures, given)


def _pages(model, batch, size, device):
    """Chunks of pages without pixels, and their visual tokens."""
    made = []
    for chunk in chunks(batch, size):
        inputs = chunk.inputs.to(device)
        if inputs.pixel_values is not None:
            with torch.inference_mode():
                visual = model.encode_vision(inputs.pixel_values, inputs.grid_thw)
            made.append((inputs.without_pixels(), visual))
    return made


if __name__ == "__main__":
    main()
