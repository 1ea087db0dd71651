"""How a published table was computed: query text, precision, padding, ties, by exact versions."""
