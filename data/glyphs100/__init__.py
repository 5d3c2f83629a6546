"""The embedded data set: 100 characters in 84 typefaces."""
