"""Authenticated streams for Tornado."""
