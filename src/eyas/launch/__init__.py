"""One training in several processes: launcher, handover, interrupt, worker."""
