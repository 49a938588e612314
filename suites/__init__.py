"""What can be asked for: the schema of a suite, model names, and the built-in suites."""
