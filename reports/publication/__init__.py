"""The publication's own figures and tables, drawn from the data of a run."""
