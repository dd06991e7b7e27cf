"""The four graphs of a bundle, one module each."""
