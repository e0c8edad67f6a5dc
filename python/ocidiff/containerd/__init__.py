"""The services of containerd, over gRPC. Needs the extra `ocidiff[containerd]`."""
