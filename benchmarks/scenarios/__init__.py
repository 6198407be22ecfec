"""One scenario per module; each runs in a fresh process, once per contestant and repeat."""
