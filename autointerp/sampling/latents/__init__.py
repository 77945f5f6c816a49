"""The spill -> what is known of each latent: totals, statistics, examples kept apart by document."""
