"""What is shown: tidy frames, comparisons, charts, and one HTML page."""
