"""The plugin: containerd's Diff service over gRPC, both methods, in a process that stays."""
