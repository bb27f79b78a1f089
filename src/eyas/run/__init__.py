"""What is known about a run: its plan, its history, and the protocol by which others see it."""
