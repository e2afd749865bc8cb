"""What a run was: its record, kept in a history, and what is made of it for people and for monitoring."""
