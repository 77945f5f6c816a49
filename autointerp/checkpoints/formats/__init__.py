"""One module per on-disk format, each named after the tool that writes it; see `CheckpointFormat`."""
