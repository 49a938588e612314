"""What can be asked for: the schema of suites, model names, and built-in suites."""
