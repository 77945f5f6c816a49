"""Sections of a suite, one file for each family of metrics that has settings of its own."""
