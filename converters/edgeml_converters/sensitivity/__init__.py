"""Which activations of a model lose most in 8 bits."""
