"""The benchmarks by name: what they are, where their data come from, what their scores mean."""
