"""A FastAPI application with Loki, in containers; ``compose.yaml`` starts it."""
