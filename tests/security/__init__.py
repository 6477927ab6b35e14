"""What an attacker tried once, kept: each test sends it again."""
