"""The main job: train, record, measure, overlay theories, write the page."""

from tauflow.study.configuration import StudyConfiguration
from tauflow.study.evaluation import FilterEvaluation, TrialEvaluation
from tauflow.study.measures import measure, ranks_to_try, updates_to_threshold
from tauflow.study.recipe import RECIPES, Recipe, recipe
from tauflow.study.recording_configuration import RecordingConfiguration, prepare
from tauflow.study.recording_study import RecordingStudy, resume_recording_study, study_recording
from tauflow.study.study import Study, StudyInterrupted, analyse, resume_study, run_study, write_study
from tauflow.study.ways import Descent, Flow

__all__ = [
    "RECIPES",
    "Descent",
    "FilterEvaluation",
    "Flow",
    "Recipe",
    "RecordingConfiguration",
    "RecordingStudy",
    "Study",
    "StudyConfiguration",
    "StudyInterrupted",
    "TrialEvaluation",
    "analyse",
    "measure",
    "prepare",
    "ranks_to_try",
    "recipe",
    "resume_recording_study",
    "resume_study",
    "run_study",
    "study_recording",
    "updates_to_threshold",
    "write_study",
]
