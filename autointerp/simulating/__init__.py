"""Explanation + passages -> predictions: an expectation per token, or one number per passage."""
