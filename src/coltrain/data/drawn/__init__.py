"""Pages that the package draws itself: `tiny:train`, `tiny:dev`, `tiny:test`."""

from coltrain.data.drawn.source import drawn_collection

__all__ = ["drawn_collection"]
