"""How a face is asked for, made and handed on, whoever makes it; no training."""
