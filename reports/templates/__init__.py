"""The report page: its HTML, style and script, as files that a browser could read."""
