"""What is in the directory of a snapshot."""
