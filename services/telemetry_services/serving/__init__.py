"""What every service stands on: sockets, an HTTP side port, a gRPC server, health, signals and a clean end."""
