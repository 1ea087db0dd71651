"""Why two numbers differ: every difference between two trainings, by what it is known to do.

side         a training with all that is known of it, by name
run          what a run of ours recorded beside its recipe
rows         which rows of the data changed
known        what a difference is known to do, with its evidence (known.yaml)
negatives    the sentence about the batch that was asked for and the negatives that were met
measured     what studies found of a difference, from their results files
differences  two sides, compared and ranked
document     the result as JSON and as text
"""

from coltrain.reproduction.causes.differences import Causes as Causes
from coltrain.reproduction.causes.differences import Difference as Difference
from coltrain.reproduction.causes.differences import find_causes as find_causes
from coltrain.reproduction.causes.document import causes_text as causes_text
from coltrain.reproduction.causes.document import causes_to_json as causes_to_json
from coltrain.reproduction.causes.measured import shipped_effects as shipped_effects
from coltrain.reproduction.causes.measured import study_effects as study_effects
from coltrain.reproduction.causes.reading import read_causes_side as read_causes_side
from coltrain.reproduction.causes.side import Side as Side
from coltrain.reproduction.causes.side import Value as Value
