"""What `/livez`, `/readyz` and `/health` say while real parts fail: `python -m tests.health` writes the table."""
