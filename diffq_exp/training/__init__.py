"""Training: the loop, and what it is handed. Nothing here knows Hydra; everything arrives as an object."""
