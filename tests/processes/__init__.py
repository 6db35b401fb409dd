"""Several server processes on one database: refresh, revocation, events and clocks across them, and fail-overs."""
