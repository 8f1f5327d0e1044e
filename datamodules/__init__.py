"""Where batches come from: the data module, which rows it trains on, the batch contract; no model, no loss."""
