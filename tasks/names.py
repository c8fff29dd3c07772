"""Task names. Frozen: a message from an older release must find its task in a newer one."""

ARCHIVE_ASSET = "archiver.archive_asset"
SWEEP = "archiver.sweep"
DISPATCH = "archiver.dispatch"
WATCH = "archiver.watch"
RECONCILE = "archiver.reconcile"
SCRUB = "archiver.scrub"
DRILL = "archiver.drill"
