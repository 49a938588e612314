"""What several tests share: records of made-up runs, and programs that they start."""
