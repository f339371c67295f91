"""`python -m trialign_ray` equals `trialign`."""

from trialign_ray.cli import main

if __name__ == "__main__":
    main()
