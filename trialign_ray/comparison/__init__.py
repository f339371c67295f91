"""Many methods in many worlds, side by side: `trialign compare`."""
