"""Tasks: a loss to train, scores to report, and the headline by which runs are compared.

A new task is a class here, or anywhere, that derives from `Task`, and a YAML in conf/task that names it.
"""

from .base import Task, as_task
from .classification import Classification
from .language_modelling import LanguageModelling

__all__ = ["Classification", "LanguageModelling", "Task", "as_task"]
