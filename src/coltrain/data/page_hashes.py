"""What names a page in a cache: the SHA-256 of its image file."""

import hashlib

from coltrain.data.collection import Collection
from coltrain.data.images import encoded


class PageHashes:
    """Of a collection's pages; each file is read and hashed once by a process: it does not change
    during a run.

    Args:
        collection: Whose pages.
    """

    def __init__(self, collection: Collection) -> None:
        self._collection = collection
        self._known: dict[int, str] = {}

    def __getitem__(self, index: int) -> str:
        """Of a page.

        Raises:
            DataError: [not-an-image] or [zero-sized] There is no image file.
        """
        if index not in self._known:
            content = encoded(self._collection.images, index)
            self._known[index] = hashlib.sha256(content).hexdigest()
        return self._known[index]
