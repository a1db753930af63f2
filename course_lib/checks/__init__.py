"""The questions each exercise is asked: one module a lesson.

A check runs the learner's function on real ranks and prints one line a property, ``✓`` or ``✗``
with a hint. A stub prints ``○ not done yet``, so that Run All goes on. In the solutions notebooks
``raise_on_failure()`` makes anything but ``✓`` an error.
"""

from course_lib.checks._engine import CheckFailed, raise_on_failure

__all__ = ["CheckFailed", "raise_on_failure"]
