"""A bounded in-memory OTLP receiver, so that a trace can be read back without another product."""
