"""Our sweeper and our launcher: Hydra loads plugins from this namespace only. Chosen in conf/hydra/."""
