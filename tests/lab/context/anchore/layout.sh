#!/bin/sh
# Runs as root inside an image build: lays Anchore's programs and its Python out as one generation does.
#   PYTHON    a name such as python3.6; SITE: its site-packages, or the word venv
#   ANCHORE   yes when there is a user anchore
#   BIN       the directory of the programs; PROGRAMS: their names
#   ENTRYPOINT  a file beside this one, or empty; SECOND_VENV: a second venv or empty
set -eu
here=$(dirname "$0")
unpack() { for w in "$here"/wheels/*.whl; do /usr/bin/python3 -m zipfile -e "$w" "$1"; done; } # as pip --target
mkdir -p /config /workspace "$BIN"
[ "$ANCHORE" != yes ] || { groupadd -g 1000 anchore; useradd -l -u 1000 -g 1000 -d /home/anchore -m -s /bin/bash anchore; }
if [ "$SITE" = venv ]; then
  /usr/bin/python3 -m venv --without-pip /home/anchore/venv
  interpreter=/home/anchore/venv/bin/python3
  unpack "$(echo /home/anchore/venv/lib/python3*/site-packages)"
else
  # An older image: its packages in the site-packages of a Python that this Debian does not have. The name of that
  # Python starts the one there is, and a .pth file shows it the directory.
  case $PYTHON in
    python2.7) dpkg -i --force-depends "$here"/debs/*.deb > /dev/null 2>&1; pth=/usr/local/lib/python2.7/dist-packages ;;
    *) [ -e "/usr/bin/$PYTHON" ] || ln -s "$(readlink -f /usr/bin/python3)" "/usr/bin/$PYTHON"
       pth=/usr/lib/python3/dist-packages ;;
  esac
  interpreter=/usr/bin/$PYTHON
  mkdir -p "$SITE" "$pth"
  unpack "$SITE"
  echo "$SITE" > "$pth/lab-layout.pth"
fi
case $SITE in /opt/rh/*) # UBI 7: a software collection, and a script that reaches the program in it by the entrypoint
  for name in python python3 "$PYTHON"; do ln -s /usr/bin/python3 "$BIN/$name"; done
  interpreter=$BIN/$PYTHON
  # shellcheck disable=SC2016 # the variable is for whoever sources the file
  printf 'export PATH=%s${PATH:+:${PATH}}\n' "$BIN" > /opt/rh/rh-python36/enable
  # shellcheck disable=SC2016 # unquoted as the vendor's is
  printf '#!/usr/bin/env bash\n\n/docker-entrypoint.sh anchore-manager $@' > /usr/local/bin/anchore-manager
  chmod 755 /usr/local/bin/anchore-manager ;;
esac
for name in $PROGRAMS; do
  { echo "#!$interpreter"; cat "$here/stand-in"; } > "$BIN/$name"
  chmod 755 "$BIN/$name"
done
[ -z "$SECOND_VENV" ] || { /usr/bin/python3 -m venv --without-pip "$SECOND_VENV" && unpack "$(echo "$SECOND_VENV"/lib/python3*/site-packages)"; }
[ -z "$ENTRYPOINT" ] || install -m 755 "$here/$ENTRYPOINT" /docker-entrypoint.sh
# As Anchore's Dockerfile does: owned by 1000, group root may do the same (arbitrary uid with gid 0).
if [ "$ANCHORE" = yes ]; then
  chown -R 1000:0 /home/anchore /config /workspace
  chmod -R g+rwX /home/anchore /config /workspace
fi
