"""Two FastAPI services, one trace across both: see ``python -m examples.two_services``."""
