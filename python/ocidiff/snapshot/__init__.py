"""Where trees live: what a snapshotter promises, and the two that keep them in a store."""
