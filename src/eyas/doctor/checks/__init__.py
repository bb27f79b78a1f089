"""One module for each check; ``registry`` lists them."""
