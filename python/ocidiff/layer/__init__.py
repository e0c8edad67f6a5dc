"""One layer: the verbs diff and apply, their values, and the engines that carry them out."""
