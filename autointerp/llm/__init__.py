"""The LLM that explains and judges: over HTTP or in this process; every answer is kept and paid for once."""
