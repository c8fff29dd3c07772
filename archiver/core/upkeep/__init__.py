"""What runs on a schedule or by hand over all assets: sweep, dispatch, watch, reconcile, scrub, review.

May import everything in archiver.core.
"""
