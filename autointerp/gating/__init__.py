"""A finished run and a policy -> pass, fail or undecided, for people and for CI."""
