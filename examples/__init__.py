"""Complete programs; the test suite runs them."""
