"""The REST API: every action of the service layer over HTTP, described by an OpenAPI 3.1 document."""
