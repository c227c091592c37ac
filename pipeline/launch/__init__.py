"""Launching on Kubernetes: RayJobs made from the admins' templates, watched and taken away again."""
