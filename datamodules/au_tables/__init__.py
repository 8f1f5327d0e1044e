"""Action units of faces as other tools have written them down: one file per tool; nothing that estimates them."""
