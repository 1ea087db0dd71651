"""`python -m coltrain`."""

from coltrain.cli import main

main()
