"""Who answers for which object. No gradients, no losses."""

from eyas.assign.hungarian import HungarianMatcher, OverlapMatcher
from eyas.assign.task_aligned import Assignment, TaskAlignedAssigner

__all__ = ["Assignment", "HungarianMatcher", "OverlapMatcher", "TaskAlignedAssigner"]
