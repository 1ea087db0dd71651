"""Which library resizes a page: Pillow, or torchvision.

Both follow Qwen2-VL's rule for the size; their bicubic filters differ in the last bits of some
pixels, which moves an embedding by up to 4e-3. colpali-engine had Pillow when the published models
were trained, and takes torchvision where it is installed since it runs on transformers 5.
"""

from importlib.metadata import version
from importlib.util import find_spec
from typing import Literal

from transformers import BaseImageProcessor, Qwen2VLImageProcessorPil

from coltrain.errors import ModelError

ImageBackend = Literal["pil", "torchvision"]


def image_processor_for(backend: ImageBackend, processor: BaseImageProcessor) -> BaseImageProcessor:
    """An image processor of the backend with the settings of a given one.

    Raises:
        ModelError: torchvision is asked for and not installed.
    """
    if backend == backend_of(processor):
        return processor
    if backend == "pil":
        return Qwen2VLImageProcessorPil.from_dict(processor.to_dict())
    if find_spec("torchvision") is None:
        raise ModelError(
            "no-torchvision",
            "pages are to be resized by torchvision, which is not installed.",
            received="image backend torchvision",
            expected="the package torchvision, in the version that fits torch",
            suggestion="pip install 'coltrain[torchvision]', or the image backend pil",
        )
    # Not at the top: transformers has this class only where torchvision is.
    from transformers import Qwen2VLImageProcessor

    return Qwen2VLImageProcessor.from_dict(processor.to_dict())


def backend_of(processor: object) -> ImageBackend:
    """The library that an image processor resizes with."""
    return "pil" if isinstance(processor, Qwen2VLImageProcessorPil) else "torchvision"


def library_of(backend: ImageBackend) -> str:
    """Name and version of a backend's library, as `Pillow 12.0.0`: a filter can change with it."""
    name = "Pillow" if backend == "pil" else "torchvision"
    return f"{name} {version(name)}"
