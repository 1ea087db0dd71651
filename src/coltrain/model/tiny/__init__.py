"""The embedded default: a ColQwen2 of 0.8 million parameters that can read drawn pages."""
