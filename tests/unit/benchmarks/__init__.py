"""The benchmarks' pure parts: cases, configurations, parsing, summaries, goals, pages."""
