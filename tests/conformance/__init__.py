"""The server that the official MCP conformance suite is run against, and the runs."""
