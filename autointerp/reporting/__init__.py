"""What a run found -> report.html, report.json, Markdown, CSV and the terminal."""
