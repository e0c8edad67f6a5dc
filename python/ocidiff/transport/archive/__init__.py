"""Archives: an image, or several, in one tar that Docker and OCI tools read."""
