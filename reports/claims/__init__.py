"""The claims of the publication, one by one: published, found here, and a verdict."""
