"""Bytes on disk -> SparseAutoencoder."""
