"""A simulated 100ms with named faults, for the demo and for tests.

Imports nothing else of this project.
"""
