"""One scenario a module; each runs in a fresh process, once for every contestant."""
