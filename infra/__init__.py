"""Deployment, monitoring, sample events, and local stand-ins for the cloud."""
