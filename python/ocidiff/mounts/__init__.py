"""Mounts: what a mount is, how one is made, and which trees to compare for it. Knows no store and no layer."""
