"""What we do and what the neighbours do, asked by the same requests."""
