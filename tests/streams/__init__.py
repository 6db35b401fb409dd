"""Streams on a real Tornado server and real sockets."""
