"""Rows of the database; everything works within a transaction of the caller."""
