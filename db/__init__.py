"""Where results live: typed rows, all writes, all reads, and the schema's history."""
