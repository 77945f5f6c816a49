"""Which contexts stand for a latent: one file per sampler."""
