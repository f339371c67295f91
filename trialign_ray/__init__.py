"""TriAlign on Ray: personalize a language model for groups, and keep facts equal for all of them.

`run.py` is the recipe and reads top to bottom. Heavy libraries are imported where they are used, so
that `import trialign_ray` and `trialign --help` stay fast.
"""

__version__ = "0.1.0"
