"""The store in a directory: all of its files, and all of its SQL."""
