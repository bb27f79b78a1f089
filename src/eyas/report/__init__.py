"""What people look at: the console, tables before the first step, pictures."""
