"""How far two evaluations are apart, and whether that means anything.

sides        an evaluation of ours, or published scores
spread       what a mean alone leaves open
difference   of a task and of a mean over tasks, paired where queries can be
verdict      the difference in words
comparison   all of it as rows, and as JSON
acceptance   whether our evaluator gives a published model its published scores
forest, page the picture and its page
"""

from coltrain.reproduction.comparison.acceptance import acceptance as acceptance
from coltrain.reproduction.comparison.comparison import Comparison as Comparison
from coltrain.reproduction.comparison.comparison import compare as compare
from coltrain.reproduction.comparison.comparison import comparison_to_json as comparison_to_json
from coltrain.reproduction.comparison.page import write_page as write_page
from coltrain.reproduction.comparison.sides import read_side as read_side
