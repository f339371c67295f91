"""The parts of the central problem's solver; `trialign_ray.targets` is its door."""
