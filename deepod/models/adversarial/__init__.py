"""Methods in which a generator and a discriminator learn from one another."""
