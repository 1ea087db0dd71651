"""What can go wrong, as one hierarchy.

    ColtrainError
    ├── RecipeError     the recipe, or an override of it, cannot be used
    ├── DataError       a data set cannot be found, read or used
    ├── ModelError      weights, adapters or tokenizers cannot be loaded or do not fit
    ├── RunError        a run folder cannot be written, read or continued
    ├── UsageError      a command was given something it cannot work with
    └── TrainingError   a run that had started cannot go on (exit code 1; the others exit with 2)

Each error has a short code, a heading in docs/reference/errors.md.
"""


class ColtrainError(Exception):
    """An error for the person who typed the command: what came, what was expected, a way out.

    Args:
        code: Short kebab-case name of the kind of mistake; a heading in docs/reference/errors.md.
        message: One sentence that says what is wrong.
        where: File, key or row.
        received: What came.
        expected: What would have been right.
        suggestion: A way out, printed as "try".
    """

    exit_code = 2

    def __init__(
        self,
        code: str,
        message: str,
        *,
        where: str | None = None,
        received: str | None = None,
        expected: str | None = None,
        suggestion: str | None = None,
    ) -> None:
        self.code = code
        self.message = message
        self.where = where
        self.received = received
        self.expected = expected
        self.suggestion = suggestion
        super().__init__(str(self))

    def __reduce__(self) -> tuple:
        # Worker processes hand errors back by pickle, which knows nothing of keyword arguments.
        details = {
            "where": self.where,
            "received": self.received,
            "expected": self.expected,
            "suggestion": self.suggestion,
        }
        return _rebuild, (type(self), self.code, self.message, details)

    def __str__(self) -> str:
        lines = [f"{type(self).__name__} [{self.code}]: {self.message}"]
        for label, text in (
            ("where", self.where),
            ("received", self.received),
            ("expected", self.expected),
            ("try", self.suggestion),
        ):
            if text:
                indented = text.replace("\n", "\n" + " " * 12)
                lines.append(f"  {label:<10}{indented}")
        return "\n".join(lines)


def _rebuild(
    kind: type[ColtrainError], code: str, message: str, details: dict[str, str | None]
) -> ColtrainError:
    return kind(code, message, **details)


class RecipeError(ColtrainError):
    """The recipe, or an override of it, cannot be used."""


class DataError(ColtrainError):
    """A data set cannot be found, read or used."""


class ModelError(ColtrainError):
    """Weights, adapters or tokenizers cannot be loaded, or do not fit."""


class RunError(ColtrainError):
    """A run folder cannot be written, read or continued."""


class UsageError(ColtrainError):
    """A command was given something that it cannot work with."""


class TrainingError(ColtrainError):
    """A run that had started cannot go on."""

    exit_code = 1
