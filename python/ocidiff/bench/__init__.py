"""Benchmarks: workloads of ours and of other tools, in turns on one machine, and a page with plots of what they took."""
