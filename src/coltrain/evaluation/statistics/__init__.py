"""How far a score can be trusted, as pure functions on arrays.

sample        the values of a task, grouped into what is drawn together
resampling    bootstrap resamples of its mean
intervals     where the true mean may lie, of one task and of a benchmark
"""

from coltrain.evaluation.statistics.intervals import Interval as Interval
from coltrain.evaluation.statistics.intervals import macro_interval as macro_interval
from coltrain.evaluation.statistics.intervals import mean_interval as mean_interval
from coltrain.evaluation.statistics.intervals import sample_interval as sample_interval
from coltrain.evaluation.statistics.sample import Sample as Sample
