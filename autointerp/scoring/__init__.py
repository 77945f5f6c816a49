"""Prediction and truth -> score: pure functions, one file per score, the same for every explanation."""
