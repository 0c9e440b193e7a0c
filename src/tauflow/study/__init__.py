"""The main job: train, record, measure, overlay theories, write the page."""

from tauflow.study.configuration import StudyConfiguration
from tauflow.study.evaluation import FilterEvaluation, TrialEvaluation
from tauflow.study.measures import measure, ranks_to_try, updates_to_threshold
from tauflow.study.recipe import RECIPES, Recipe, recipe
from tauflow.study.study import Study, StudyInterrupted, analyse, resume_study, run_study, write_study
from tauflow.study.ways import Descent, Flow

__all__ = [
    "RECIPES",
    "Descent",
    "FilterEvaluation",
    "Flow",
    "Recipe",
    "Study",
    "StudyConfiguration",
    "StudyInterrupted",
    "TrialEvaluation",
    "analyse",
    "measure",
    "ranks_to_try",
    "recipe",
    "resume_study",
    "run_study",
    "updates_to_threshold",
    "write_study",
]
