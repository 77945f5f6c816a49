"""Probe tasks -> labelled examples."""
