"""Where samples come from: label spaces, readers, the synthetic pool and the data module that mixes them."""
