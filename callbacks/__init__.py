"""When things happen: synthesis, guidance, voting, logging."""
