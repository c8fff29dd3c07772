"""A 100ms of our own, with faults, for the demo and for tests.

Imports nothing else of this project.
"""
