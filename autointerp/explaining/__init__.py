"""Evidence of a latent -> an explanation: one file per explainer."""
