"""Many layers: commit, unpack, and the store of named images."""
