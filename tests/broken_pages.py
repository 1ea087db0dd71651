"""Image files that something is wrong with, and files that only look so."""

import io
import struct
import zlib

import numpy as np
from PIL import Image


def noise(seed: int, width: int = 60, height: int = 40) -> Image.Image:
    """A page that no coder makes small."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def encoded(image: Image.Image, form: str = "PNG", **options) -> bytes:
    """An image as a file."""
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A PNG file that says a size and has no pixels."""

    def chunk(name: bytes, content: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(name + content))
        return struct.pack(">I", len(content)) + name + content + check

    size = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(b""))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + pixels + chunk(b"IEND", b"")


def sixteen_bit(form: str = "PNG") -> bytes:
    """Gray of 16 bits: 0, 257, 514, … so that scaled to 8 bits it is 0, 1, 2, …"""
    ramp = (np.arange(256, dtype=np.uint16) * 257).reshape(16, 16)
    return encoded(Image.fromarray(ramp), form)


BROKEN = {
    "truncated": [
        encoded(noise(1))[:3000],
        encoded(noise(2), "JPEG")[:900],
        encoded(noise(3), "TIFF")[:500],
        encoded(noise(4))[:20],  # not even the size is whole
        encoded(noise(5), "WEBP")[:300],
    ],
    "not-an-image": [b"hello", b"%PDF-1.4 " + bytes(90), None],
    "decompression-bomb": [png_header(60_000, 60_000), png_header(12_000, 12_000)],
    "zero-sized": [b"", png_header(0, 10), png_header(10, 0)],
    "extremely-wide": [encoded(Image.new("L", (2010, 10))), encoded(Image.new("L", (1, 201)))],
}
CONVERTED = {
    "cmyk": [
        encoded(noise(11).convert("CMYK"), "JPEG"),
        encoded(noise(12).convert("CMYK"), "TIFF"),
    ],
    "16-bit": [sixteen_bit(), sixteen_bit("TIFF")],
    "animated": [
        encoded(noise(14), "GIF", save_all=True, append_images=[noise(15)]),
        encoded(noise(16), "PNG", save_all=True, append_images=[noise(17)]),
        encoded(noise(18), "TIFF", save_all=True, append_images=[noise(19)]),
    ],
    "transparent": [
        encoded(noise(20).convert("RGBA")),
        encoded(Image.new("LA", (9, 9), (80, 10))),
        encoded(Image.new("P", (9, 9)), transparency=0),
    ],
}
