#!/bin/sh
# Runs as root inside an image build: turns a Debian root into RHEL's trust layout.  layout.sh EL OS-RELEASE
set -eu
here=$(dirname "$0")
pki=/etc/pki e=/etc/pki/ca-trust/extracted
dpkg -i "$here"/debs/p11-kit*.deb > /dev/null
mkdir -p $pki/ca-trust/source/anchors $pki/ca-trust/source/blocklist /usr/share/pki/ca-trust-source/anchors \
  /usr/share/pki/ca-trust-source/blocklist $e/pem $e/openssl $e/java $e/edk2 $pki/tls/certs $pki/tls/private $pki/java
[ "$1" != 8 ] || mkdir -p $pki/ca-trust/source/blacklist /usr/share/pki/ca-trust-source/blacklist
# Mozilla's set of Debian's package, as one p11-kit source; no Debian trust tooling is left.
/usr/bin/python3 "$here"/p11-kit-source.py < /etc/ssl/certs/ca-certificates.crt \
  > /usr/share/pki/ca-trust-source/ca-bundle.trust.p11-kit
rm -rf /etc/ssl/certs /etc/ca-certificates /etc/ca-certificates.conf /usr/share/ca-certificates \
  /usr/local/share/ca-certificates /usr/sbin/update-ca-certificates
ln -s $pki/tls/certs /etc/ssl/certs
ln -s $e/pem/tls-ca-bundle.pem $pki/tls/certs/ca-bundle.crt
ln -s $e/openssl/ca-bundle.trust.crt $pki/tls/certs/ca-bundle.trust.crt
ln -s $e/pem/tls-ca-bundle.pem $pki/tls/cert.pem
ln -s $e/pem/tls-ca-bundle.pem /etc/ssl/cert.pem
ln -s $e/java/cacerts $pki/java/cacerts
# Debian's openssl, curl and python look in /usr/lib/ssl and for ca-certificates.crt: give them what
# RHEL's builds of the same programs look at (OPENSSLDIR=/etc/pki/tls; curl: ca-bundle.crt).
rm -f /usr/lib/ssl/cert.pem /usr/lib/ssl/certs
ln -s $pki/tls/cert.pem /usr/lib/ssl/cert.pem
ln -s $pki/tls/certs /usr/lib/ssl/certs
ln -s $e/pem/tls-ca-bundle.pem $pki/tls/certs/ca-certificates.crt
cp /etc/ssl/openssl.cnf $pki/tls/openssl.cnf
# A file of this name in /etc/pkcs11/modules is merged over the packaged one, so the packaged one is replaced.
cp "$here"/p11-kit-trust.module /usr/share/p11-kit/modules/p11-kit-trust.module
rm -f /etc/os-release /etc/debian_version
# Their /bin/sh is bash, which becomes the last command of `sh -c` as dash of that age does not.
ln -sf bash /usr/bin/sh
cp "$2" /usr/lib/os-release
ln -s ../usr/lib/os-release /etc/os-release
sed "s/@EL@/$1/" "$here"/update-ca-trust > /usr/bin/update-ca-trust
chmod 755 /usr/bin/update-ca-trust
/usr/bin/update-ca-trust
chmod 444 $e/pem/*.pem $e/openssl/* $e/java/* $e/edk2/*
chmod 555 $e $e/pem $e/openssl $e/java $e/edk2
