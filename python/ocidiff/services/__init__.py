"""The promises of a store, in containerd's words: protocols and values, no input or output."""
