"""`python -P -m worker.cli`: the `archiver` command of this very interpreter."""

from worker.cli import main

main()
