"""Doubles that tests of this package and of others can use; nothing here needs a network."""
