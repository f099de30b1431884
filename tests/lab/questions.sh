#!/bin/sh
# Runs inside a container of the lab, with the environment of the application: what every client says to the servers of
# CA A (private) and of CA B (unknown), the bundles that are in force, and the environment.
# usage: questions.sh OS-BUNDLE CERTIFI-BUNDLE PYTHON-WITH-REQUESTS
os=$1 certifi=$2 python=$3
ask() { # ask NAME HTTPS-PORT REGISTRY-PORT
  echo "== $1"
  sh /probe.sh "https.lab.test:$2" "registry.lab.test:$3" "$python"
  command -v node > /dev/null || return 0
  node=$(node -e "require('https').get('https://https.lab.test:$2/', answer => {
    console.log('trusted'); process.exit() }).on('error', error => console.log(
    /CERT|LEAF_SIGNATURE/.test(error.code) ? 'refused' : 'broken', error.code))" 2>&1)
  echo "node $node"
}
# Both at once: what the first part says waits in the pipe.
ask unknown 8444 5001 | {
  ask private 8443 5000 < /dev/null
  cat
}
echo '== os'
cat "${SSL_CERT_FILE:-$os}"
echo '== python'
cat "${REQUESTS_CA_BUNDLE:-${CURL_CA_BUNDLE:-$certifi}}"
echo '== extra'
cat "${NODE_EXTRA_CA_CERTS:-/dev/null}"
echo '== environment'
env
