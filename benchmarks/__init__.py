"""Measures the archiver's engine against the tools a team would script instead. See docs/benchmarks.md."""
