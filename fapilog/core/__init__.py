"""Import paths that users of earlier versions know."""
