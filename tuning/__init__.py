"""Search over penalty weights. Reaches `trialign_ray` only through its recipe and its targets."""
