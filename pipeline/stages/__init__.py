"""The six stages: each module wires Ray and the stores around work that lives elsewhere."""
