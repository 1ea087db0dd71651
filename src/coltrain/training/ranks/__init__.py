"""Processes that train one model together: each has its part of every global batch.

ranks.py       which rank this process is, and what ranks do with one another
gather.py      every rank's embeddings on all ranks, differentiable
starting.py    ranks on this machine, for checks and tests
self_check.py  many ranks against one process, in float64
"""

from coltrain.training.ranks.ranks import SINGLE as SINGLE
from coltrain.training.ranks.ranks import Ranks as Ranks
