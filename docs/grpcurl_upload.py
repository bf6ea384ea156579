"""Prints the messages that upload a package, as `grpcurl -d @` reads them: `python grpcurl_upload.py PACKAGE`."""

import base64
import hashlib
import json
import sys
from pathlib import Path

from tutelage.archive import unpack

MIB = 1 << 20

data = Path(sys.argv[1]).read_bytes()
digests = [f"sha256:{hashlib.sha256(part).hexdigest()}" for part in (unpack(data)["manifest.json"], data)]
header = {"digest": digests[0], "file_digest": digests[1], "size_bytes": len(data), "offset": 0}
print(json.dumps({"header": header}))
for start in range(0, len(data), MIB):
    print(json.dumps({"chunk": base64.b64encode(data[start : start + MIB]).decode()}))
