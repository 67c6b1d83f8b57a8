"""A package with a module called wsgi."""
