"""The names under which tasks travel. Frozen: a message of an old release must find its task in a new one."""

ARCHIVE_ASSET = "archiver.archive_asset"
SWEEP = "archiver.sweep"
DISPATCH = "archiver.dispatch"
WATCH = "archiver.watch"
RECONCILE = "archiver.reconcile"
SCRUB = "archiver.scrub"
