"""What a store promises, in containerd's words: protocols and values, no input or output."""
