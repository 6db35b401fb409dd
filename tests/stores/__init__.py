"""One suite for every session store, one for every event log."""
