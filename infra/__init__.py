"""What surrounds the software: deployment, events, and the local stand-ins for the cloud."""
