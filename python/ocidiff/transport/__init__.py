"""Images between places: the local store, layouts, archives, registries and containerd."""
