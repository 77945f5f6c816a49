"""An OpenAI-compatible server on this machine: a tiny model, a script of faults, or an oracle behind it."""
