"""The pages of the documentation, and what makes and checks them."""
