"""Using a tuned model: the stars of new reviews."""
