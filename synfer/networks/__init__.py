"""Plain ``torch.nn`` building blocks: no Lightning here."""
