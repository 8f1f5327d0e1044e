"""When faces are made, steered, voted on and written; what is done lies in synfer."""
