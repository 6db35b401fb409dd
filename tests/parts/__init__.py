"""The real servers and the fault tools that the tests run against: one module a part, each a context manager."""
