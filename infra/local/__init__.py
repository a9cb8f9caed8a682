"""A laptop as the cloud: the Lambda service around the real runtime client, and a real Valkey."""
