#!/bin/sh
# Two TLS registries over the same storage, by CA A and by CA B, and the HTTPS servers.
registry() {
  REGISTRY_HTTP_ADDR=:$1 REGISTRY_HTTP_TLS_CERTIFICATE=/pki/$2.pem REGISTRY_HTTP_TLS_KEY=/pki/$2.key \
    docker-registry serve /servers/registry.yml &
}
registry 5000 registry-a
registry 5001 registry-b
exec /usr/bin/python3 /servers/https.py
