"""Two FastAPI services with one trace across both; run ``python -m examples.two_services``."""
