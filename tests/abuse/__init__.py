"""What hostile clients do to a real member, and what they cost it."""
