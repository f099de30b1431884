#!/bin/sh
# Runs inside a container of the lab: one line a client: CLIENT VERDICT REASON
# VERDICT: trusted, refused (for its certificate) or broken (for anything else).
# usage: probe.sh HTTPS-HOST:PORT REGISTRY-HOST:PORT PYTHON-WITH-REQUESTS
https=$1 registry=$2 python=$3
client() {
  name=$1
  shift
  if said=$(timeout 30 "$@" 2>&1 < /dev/null); then verdict=trusted
  elif printf '%s' "$said" | grep -qiE 'certificate.verify|unknown authority|local issuer|self.signed|unable to get'; then
    verdict=refused
  else verdict=broken; fi
  printf '%s %s %s\n' "$name" "$verdict" "$(printf '%s' "$said" | tail -1 | tr -s ' ' | cut -c1-200)"
}
client skopeo skopeo inspect "docker://$registry/lab/tiny:1"
client curl curl -fsS -m 10 "https://$https/"
client openssl openssl s_client -verify_return_error -brief -connect "$https"
client ssl /usr/bin/python3 -c "import ssl, urllib.request as u
u.urlopen('https://$https/', timeout=10, context=ssl.create_default_context()).read()"
client requests "$python" -c "import requests; requests.get('https://$https/', timeout=10).raise_for_status()"
