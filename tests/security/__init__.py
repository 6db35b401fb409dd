"""What must hold against attackers; each test names its rows of docs/reference/security-rows.md."""
