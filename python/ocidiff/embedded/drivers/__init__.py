"""Drivers: each decides the content of a snapshot's directory."""
