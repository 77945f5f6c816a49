"""The language model under study: loading it, reading its sites, replacing them."""
