"""Sample recordings, small enough to commit, and the script that makes them.

Imports nothing else of this project.
"""
