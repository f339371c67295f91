"""The world: groups, questions, verifiers, preferences and the dialogue among groups.

Nothing here imports torch or `trialign_ray`: any program can build,
step and judge a world.
"""
