#!/bin/sh
# Runs inside the image build: puts a tiny image of our own into the registry's storage, over plain HTTP on loopback.
set -eu
dpkg -i /servers/debs/docker-registry*.deb > /dev/null
mkdir -p /etc/containers
echo '{"default": [{"type": "insecureAcceptAnything"}]}' > /etc/containers/policy.json
docker-registry serve /servers/registry.yml > /dev/null 2>&1 &
registry=$!
/usr/bin/python3 /servers/tiny.py /tmp/tiny
for _ in 1 2 3 4 5 6 7 8 9 10; do
  if skopeo copy -q --dest-tls-verify=false oci:/tmp/tiny:1 docker://localhost:5000/lab/tiny:1; then pushed=yes && break; fi
  sleep 0.5
done
kill "$registry"
rm -r /tmp/tiny
[ "${pushed-}" = yes ]
