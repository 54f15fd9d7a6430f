#!/usr/bin/env python3
"""Writes Carrack's kinds as the chart has them, one file each, from what `carrack-controller crd` prints.

    charts/crds.py target/debug/carrack-controller charts/carrack/crds

The kinds are made from the types of controller/api and from nowhere else; charts/test.sh compares.
"""

import json
import pathlib
import subprocess
import sys

INDENT = "  "
# What a YAML reader may take for a truth or for nothing.
WORDS = {"y", "n", "yes", "no", "on", "off", "true", "false", "null"}


def scalar(value):
    """A scalar, or an empty collection: JSON's form is YAML's too."""
    return json.dumps(value, ensure_ascii=False)


def name_of(key):
    """A key, in quotes unless it is a plain word that no YAML takes for something else."""
    plain = key.replace("-", "").replace("_", "").isalnum() and key[0].isalpha()
    return key if plain and key.lower() not in WORDS else scalar(key)


def block(value, depth):
    """Lines of a collection, as YAML blocks: what a person compares line by line."""
    pad = INDENT * depth
    if isinstance(value, dict):
        for key, below in value.items():
            name = name_of(key)
            if isinstance(below, (dict, list)) and below:
                yield f"{pad}{name}:"
                yield from block(below, depth + 1)
            else:
                yield f"{pad}{name}: {scalar(below)}"
        return
    for item in value:
        if isinstance(item, (dict, list)) and item:
            first, *rest = block(item, depth + 1)
            yield f"{pad}- {first.strip()}"
            yield from rest
        else:
            yield f"{pad}- {scalar(item)}"


def main():
    if len(sys.argv) != 3:
        sys.exit("usage: crds.py CONTROLLER DIRECTORY")
    controller, directory = sys.argv[1], pathlib.Path(sys.argv[2])
    printed = subprocess.run([controller, "crd"], capture_output=True, check=True, text=True).stdout
    kinds = json.loads(printed)["items"]
    directory.mkdir(parents=True, exist_ok=True)
    wanted = set()
    for kind in kinds:
        name = kind["spec"]["names"]["plural"] + ".yaml"
        wanted.add(name)
        head = "# Made by charts/crds.py from the types in controller/api; changed there.\n"
        (directory / name).write_text(head + "\n".join(block(kind, 0)) + "\n")
    for old in directory.glob("*.yaml"):
        if old.name not in wanted:
            old.unlink()
    print(f"{len(wanted)} kinds in {directory}")


if __name__ == "__main__":
    main()
