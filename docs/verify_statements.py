#!/usr/bin/env python3
"""Verify signed statements of an archive, with Python's standard library and the openssl command (3.0) alone.

    python3 verify_statements.py FOLDER --key public.pem [--key older.pem] [--tsa-ca ca.pem]

FOLDER is a copy of what the bucket has below statements/, manifests/ and ends/. Exit code 0: every statement is signed,
chained, and true of the manifests, or later records explain the difference. 1: something is not. 2: nothing to verify.
"""

import argparse
import hashlib
import json
import pathlib
import subprocess
import sys

faults, explained = [], []


def openssl(*arguments):
    return subprocess.run(["openssl", *map(str, arguments)], capture_output=True, check=False).returncode == 0


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def objects_sha256(manifest):
    lines = sorted(f"{o['path']}\t{o['size']}\t{o['crc32c']}\n" for o in manifest["objects"])
    return sha256("".join(lines).encode("utf-8", "surrogatepass"))


def read_json(path):
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def explanation(entry, path, folder):
    """Say why a manifest is not as it was stated, by what the archive recorded since; None: nothing explains it."""
    if not path.exists():
        beside = folder / entry["manifest"].replace("manifests/", "ends/", 1)
        for record in (*(folder / "ends" / "tombstones").glob(f"*/{path.name}"), beside):
            if (state := read_json(record).get("state")) in (
                "erased",
                "expired",
                "damaged",
                "rejected",
                "lost",
            ):
                return f"gone: {state}"
        return None
    now = read_json(path)
    try:
        same_objects = objects_sha256(now) == entry.get("objects_sha256")
        again = now["archived_at"] > entry["archived_at"] and (now.get("fence") or 0) > (
            entry.get("fence") or 0
        )
    except (KeyError, TypeError):
        return None
    if same_objects and now.get("damage"):
        return "marked as damaged"
    if same_objects and now.get("accepted"):
        return f"accepted by {now['accepted'].get('by')}"
    if same_objects and entry["state"] == "damaged":
        return "found whole again"
    return f"archived again at {now['archived_at']}" if again else None


def main():
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("folder", type=pathlib.Path)
    arguments.add_argument("--key", type=pathlib.Path, action="append", required=True, help="public key, PEM")
    arguments.add_argument(
        "--tsa-ca", type=pathlib.Path, help="certificate of the Time Stamping Authority, PEM"
    )
    given = arguments.parse_args()
    folder, previous, stated, last_made = given.folder, None, set(), {}
    checked = 0
    for path in sorted((folder / "statements").glob("*.json")):
        data, month = path.read_bytes(), path.stem
        signature, stamp = path.with_suffix(".sig"), path.with_suffix(".tsr")
        verify = ("pkeyutl", "-verify", "-pubin", "-rawin", "-in", path, "-sigfile", signature, "-inkey")
        if not any(openssl(*verify, key) for key in given.key):
            faults.append(f"{path.name}: the signature is not valid by any of the keys")
            continue
        if given.tsa_ca and not openssl(
            "ts", "-verify", "-data", path, "-in", stamp, "-CAfile", given.tsa_ca
        ):
            faults.append(f"{path.name}: no valid time stamp")
        statement = json.loads(data)
        if statement["month"] != month or statement["previous"] != previous:
            faults.append(
                f"{path.name}: does not follow the statement before it: one is missing, or was replaced"
            )
        previous = {"month": month, "sha256": sha256(data)}
        last_made[month.replace("-", "/")] = statement["made_at"]
        for entry in statement["assets"]:
            checked += 1
            manifest = folder / entry["manifest"]
            stated.add(entry["manifest"])
            if manifest.exists() and sha256(manifest.read_bytes()) == entry["sha256"]:
                continue
            why = explanation(entry, manifest, folder)
            (explained if why else faults).append(
                f"{entry['manifest']}: {why or 'altered or gone, and nothing says why'}"
            )
    for manifest in sorted((folder / "manifests").glob("[0-9]*/[0-9]*/[0-9]*/*.json")):
        name = manifest.relative_to(folder).as_posix()
        made_at = last_made.get("/".join(name.split("/")[1:3]))
        if made_at and name not in stated and read_json(manifest).get("archived_at", "") <= made_at:
            faults.append(f"{name}: is in no statement, although it is older than that of its month")
    for line in explained:
        print(f"explained  {line}")
    for line in faults:
        print(f"FAULT      {line}")
    print(
        f"{len(last_made)} statements, {checked} manifests, {len(explained)} changes explained, {len(faults)} faults"
    )
    return 2 if not last_made and not faults else 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
