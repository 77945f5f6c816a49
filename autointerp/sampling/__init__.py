"""Text, contexts and the pass over them that yields observations."""
