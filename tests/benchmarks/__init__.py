"""Speed and memory beside the peers: `make bench`. Nothing here is a test; nothing here is timed in `make test`."""
