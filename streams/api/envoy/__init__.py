"""Envoy's ext_authz: the same rulings over HTTP and over gRPC."""
