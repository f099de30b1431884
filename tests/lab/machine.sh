#!/bin/sh
# What tests/run and tests/demo have in common; sourced in the repository's top directory, never run.
# A fresh machine gets what it lacks; its own trust stores are never touched.

say() { printf '%s\n' "$0: $*" >&2; }
has() { command -v "$1" > /dev/null 2>&1; }

# --- the machine: packages only where they are missing, and only where apt can install them
apt() { # apt PACKAGE...: true when all of them are there afterwards
  has apt-get && [ "$(id -u)" = 0 ] || return 1
  [ -n "${updated-}" ] || apt-get update -qq < /dev/null >&2 || true
  updated=yes
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" < /dev/null >&2
}

usable() { has "$1" && "$1" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2> /dev/null; }

find_python() {
  for python in python3 python3.13 python3.12 python3.11 python3.14; do
    if usable "$python"; then return; fi
  done
  python=python3
  if apt python3 python3-venv && usable python3; then return; fi
  say 'Python 3.11 or newer with the venv module is needed: install it and run this again'
  exit 1
}

start_docker() { # whatever is missing here, the tests themselves skip or fail for
  has docker || apt docker.io || return 0
  if docker info > /dev/null 2>&1; then return; fi
  has dockerd && [ "$(id -u)" = 0 ] || return 0
  say 'starting dockerd'
  mkdir -p .cache
  unshared dockerd > .cache/dockerd.log 2>&1 &
  for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
    if docker info > /dev/null 2>&1; then return; fi
    sleep 1
  done
  say 'dockerd did not start, see .cache/dockerd.log'
}

install_tools() {
  has docker || return 0
  has mmdebstrap || apt mmdebstrap debian-archive-keyring || say 'mmdebstrap is missing: no base images can be built'
  has podman || apt podman crun catatonit netavark || say 'podman is missing: no real pod is started'
  has docker-compose || docker compose version > /dev/null 2>&1 || apt docker-compose || apt docker-compose-v2 ||
    say 'Compose is missing'
}

# --- the virtual environment, made again when pyproject.toml changes
make_venv() {
  stamp=.venv/made-for-$(cksum < pyproject.toml | tr ' ' -)
  if [ -e "$stamp" ]; then return; fi
  say 'making .venv'
  "$python" -m venv --clear .venv
  .venv/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
  touch "$stamp"
}

# What forces a CA or a Python path on programs of this machine must not reach the tests; pip's own settings may.
unshared() {
  env -u SSL_CERT_FILE -u SSL_CERT_DIR -u REQUESTS_CA_BUNDLE -u CURL_CA_BUNDLE -u NODE_EXTRA_CA_CERTS \
    -u GIT_SSL_CAINFO -u AWS_CA_BUNDLE -u HTTPLIB2_CA_CERTS -u GRPC_DEFAULT_SSL_ROOTS_FILE_PATH \
    -u PYTHONPATH -u PYTHONHOME -u PYTHONDONTWRITEBYTECODE -u VIRTUAL_ENV -u LD_PRELOAD -u LD_LIBRARY_PATH "$@"
}

# Everything for containers. Not unshared: pip and apt may need the machine's settings to fetch anything; the lab passes
# none of them on to images and containers.
prepare_lab() {
  start_docker
  install_tools
  if docker info > /dev/null 2>&1; then .venv/bin/python -m tests.lab; fi
}
