"""A small reader of the part of Python that training scripts are written in; nothing is executed."""
