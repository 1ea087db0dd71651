"""A difference in words."""

REPRODUCED = "reproduced"
ABOVE = "above"
BELOW = "below"
CANNOT_TELL = "cannot tell"
SIZE = 0.05
"""How often a difference may be claimed where there is none, and sameness where there is not."""


def verdict_on(
    difference: float, p: float, *, is_within_margin: bool, are_equal: bool = False
) -> str:
    """One of the four verdicts.

    Sameness first: an interval that lies within the margin says that the difference does not
    matter, also where it is not chance.

    Args:
        difference: This side minus the other.
        p: Adjusted for several tests.
        is_within_margin: Whether the interval at level 1 - 2 · SIZE lies within the margin.
        are_equal: Not one query differs.
    """
    if is_within_margin or are_equal:
        return REPRODUCED
    if p <= SIZE:
        return ABOVE if difference > 0 else BELOW
    return CANNOT_TELL


def in_words(
    verdict: str,
    *,
    difference: float,
    p: float,
    margin: float,
    num_queries: int,
    smallest: float,
    are_equal: bool = False,
) -> str:
    """The verdict as a sentence, in points.

    Args:
        verdict: One of the four.
        difference: In points.
        p: Adjusted.
        margin: In points.
        num_queries: Of the task, or of all of them.
        smallest: Difference in points that would have been found 4 times in 5.
        are_equal: Not one query differs.
    """
    if are_equal:
        return "reproduced: the same on every query"
    if verdict == REPRODUCED:
        there = f" ({abs(difference):.1f} {_side(difference)}, not by chance)" if p <= SIZE else ""
        return f"reproduced within ± {margin:g}{there}"
    if verdict in (ABOVE, BELOW):
        return f"{verdict} by {abs(difference):.1f}"
    return f"cannot tell: {num_queries:,} queries show {smallest:.1f} or more"


def _side(difference: float) -> str:
    return ABOVE if difference > 0 else BELOW
