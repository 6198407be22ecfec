"""OpenTelemetry in and out: the OTLP encoders, the logs API, the SDK's interfaces."""
