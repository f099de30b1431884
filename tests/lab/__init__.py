"""The container test lab: base images, stand-ins, certificates and servers, all made without an image registry."""
