"""Fetches the certificates of RDS for the image, and takes no others than those that are known.

python rds_certificates.py URL SHA256 TARGET; without a URL the target is empty. container/Dockerfile runs it.
"""

import hashlib
import sys
import urllib.request
from pathlib import Path

url, expected, target = sys.argv[1:]
content = b""
if url:
    try:
        with urllib.request.urlopen(url, timeout=60) as answer:  # noqa: S310 - whatever it has, its checksum is known
            content = answer.read()
    except OSError as error:
        sys.exit(
            f"The certificates of RDS can't be fetched from {url}: {error}.\nRDS_CERTIFICATES= container/publish.sh "
            "build leaves them out: hosts fetch them by themselves then, or do not verify the database."
        )
    if (found := hashlib.sha256(content).hexdigest()) != expected:
        sys.exit(
            f"What {url} has is not what the Dockerfile expects (SHA-256 {found}). AWS adds a region's certificates "
            f"there now and then: look at what is new, then RDS_CERTIFICATES_SHA256={found} container/publish.sh build."
        )
Path(target).write_bytes(content)
