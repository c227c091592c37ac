"""Stores: object storage, PostgreSQL and Milvus, each behind a few verbs."""
