"""Results that others published -> rows that stand beside a report's own, marked as theirs."""

from autointerp.reporting.imported.reading import read_results

__all__ = ["read_results"]
