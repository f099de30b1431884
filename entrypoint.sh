#!/bin/sh
# Starts the runtime and nothing else: for an image whose ENTRYPOINT you set yourself.
exec /opt/ca-shim/bin/ca-shim run -- "$@"
