"""Trainings in the forms that people write them in: scripts, notebooks, folders, launches.

Eight batches, each written from the list of traps before the checks were looked at again, but for the seventh
and eighth, whose writer knew them; the ninth are afterthoughts. The doctor
named at first 25 of 43, 40 of 48 (with edits of runs and model folders, which are not here), 34 of 44,
12 of 22 (a traceback on one form), 24 of 25, 30 of 63, 40 of 56 and 17 of 19, with 0, 3, 0, 1,
0, 4, 1 and 1 false alarms in 17, 28, 18, 7, 9, 25, 16 and 23 sound ones; of the tenth, whose writer had not seen
the checks, 42 of 46, with 5 in 28. What it missed was mended for the kind of form and not for the case.
"""

from planted_forms import (  # noqa: F401 - each adds to the list
    eighth,
    fifth,
    first,
    fourth,
    ninth,
    second,
    seventh,
    seventh_runs,
    sixth,
    sixth_runs,
    tenth,
    tenth_runs,
    third,
)
from planted_forms.batch import FORMS as FORMS

RUNS = sixth_runs.RUNS + seventh_runs.RUNS + tenth_runs.RUNS
"""Those that are edited runs and models of coltrain."""
