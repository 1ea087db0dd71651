"""How far a score can be trusted, as pure functions on arrays.

sample         the values of a task, grouped into what is drawn together
resampling     bootstrap resamples of its mean
intervals      where the true mean may lie, of one task and of a benchmark
significance   paired sign-flip test, and Holm's correction for several
effects        size of a difference, and the smallest that could have been seen
equivalence    two one-sided tests with a margin stated beforehand
seeds          an interval over training seeds and queries (student: its t quantile)
"""

from coltrain.evaluation.statistics.effects import effect_size as effect_size
from coltrain.evaluation.statistics.effects import (
    planned_smallest_difference as planned_smallest_difference,
)
from coltrain.evaluation.statistics.effects import smallest_difference as smallest_difference
from coltrain.evaluation.statistics.equivalence import Equivalence as Equivalence
from coltrain.evaluation.statistics.equivalence import equivalence as equivalence
from coltrain.evaluation.statistics.intervals import Interval as Interval
from coltrain.evaluation.statistics.intervals import macro_interval as macro_interval
from coltrain.evaluation.statistics.intervals import mean_interval as mean_interval
from coltrain.evaluation.statistics.intervals import sample_interval as sample_interval
from coltrain.evaluation.statistics.sample import Sample as Sample
from coltrain.evaluation.statistics.seeds import two_level_interval as two_level_interval
from coltrain.evaluation.statistics.significance import SignFlip as SignFlip
from coltrain.evaluation.statistics.significance import holm as holm
from coltrain.evaluation.statistics.significance import sign_flip_test as sign_flip_test
