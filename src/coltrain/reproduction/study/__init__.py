"""An experiment on the gap between two recipes: factors, their levels, several seeds.

schema, reading  the study's file, and what is wrong with it
between          a study between two recipes, whose differences are its factors
design           the cells: which levels go together, each a recipe that was checked
plan             the runs: a cell with a seed, known by recipe and data
folder, claims   what is on disk; who works on which run
features         visual tokens that its runs share
running, jobs    one worker after another run, or several at a time
scores           what the finished runs reached, query by query
contrasts        a weighted sum of cells, with an interval over seeds and queries
shapley          how the gap is shared out among the factors
power            what so few seeds leave open
findings         all of it; document, tables, words, page, strips write it down
"""

from coltrain.reproduction.study.reading import load_study as load_study
from coltrain.reproduction.study.reading import shipped_studies as shipped_studies
from coltrain.reproduction.study.schema import Study as Study
