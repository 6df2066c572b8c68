"""The HTTP edge: collector, gateway, pages."""
