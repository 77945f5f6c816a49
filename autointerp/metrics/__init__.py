"""Metrics of an autoencoder, one file each, and the one catalogue of them."""
