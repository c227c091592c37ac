"""The service: REST for programs and explorers, and the Virtual Observatory's protocols for astronomers' tools."""
