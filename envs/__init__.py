"""The world: groups, questions, verifiers, preferences and the dialogue among groups.

Nothing here imports torch or `trialign_ray`: a world can be built, stepped and judged by any program.
"""
