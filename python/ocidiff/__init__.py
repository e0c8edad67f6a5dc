"""Turns a changed file system into an OCI image."""
