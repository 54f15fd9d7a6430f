#!/usr/bin/env python3
"""Holds the kinds to their examples, and the operator guide to its own words, at a real API server.

    charts/examples.py rules DIRECTORY CONTROLLER    every rule has an accepted and a refused example, and they come true
    charts/examples.py guide GUIDE                   every YAML block of the guide is applied
    charts/examples.py blocks GUIDE DIRECTORY        the blocks as files, in their order

CONTROLLER is the program, whose `crd` prints the kinds with their rules.

DIRECTORY has what is there already (existing/), and pairs of the same name in accepted/ and refused/; the first line of what is
refused says with which words: `# refused: WORDS`. kubectl takes the cluster from KUBECONFIG.
"""

import json
import pathlib
import re
import subprocess
import sys

APPLY = ["kubectl", "apply", "--server-side", "--force-conflicts", "--validate=strict", "-f", "-"]


def apply(text, *options):
    """Whether the API server takes it, and what it says."""
    done = subprocess.run([*APPLY, *options], input=text, capture_output=True, text=True)
    return done.returncode == 0, done.stdout + done.stderr


def documents(text):
    """The documents of a file."""
    return [document for document in re.split(r"^---$", text, flags=re.MULTILINE) if document.strip()]


def kind_of(document):
    """The kind of an object."""
    return re.search(r"^kind: (\S+)$", document, flags=re.MULTILINE)[1]


def rules(schema, kind):
    """Kind and message of every rule below a schema. The status is the controller's own, so its rules are left out."""
    for rule in schema.get("x-kubernetes-validations", []):
        if "message" not in rule:
            sys.exit(f"a rule of {kind} has no message: {rule['rule']}")
        yield kind, rule["message"]
    for name, below in schema.get("properties", {}).items():
        if name != "status":
            yield from rules(below, kind)
    for name in ("items", "additionalProperties"):
        if isinstance(schema.get(name), dict):
            yield from rules(schema[name], kind)


def check_rules(directory, definitions):
    """Counts of rules and examples, and what is wrong."""
    wrong, covered, count = [], set(), 0
    for file in sorted((directory / "existing").glob("*.yaml")):
        taken, said = apply(file.read_text())
        if not taken:
            wrong.append(f"{file} is not accepted: {said}")
    names = {where: {file.name for file in (directory / where).glob("*.yaml")} for where in ("accepted", "refused")}
    for name in names["accepted"] ^ names["refused"]:
        wrong.append(f"{name} is not in both accepted/ and refused/")
    for name in sorted(names["accepted"] & names["refused"]):
        for document in documents((directory / "accepted" / name).read_text()):
            count += 1
            taken, said = apply(document, "--dry-run=server")
            if not taken:
                wrong.append(f"accepted/{name} is refused: {said}")
        text = (directory / "refused" / name).read_text()
        head, _, rest = text.partition("\n")
        message = head.removeprefix("# refused: ")
        if message == head:
            wrong.append(f"refused/{name} does not begin with '# refused: WORDS'")
            continue
        for document in documents(rest):
            count += 1
            taken, said = apply(document, "--dry-run=server")
            if taken or message not in said:
                wrong.append(f"refused/{name} is {'accepted' if taken else 'refused with other words: ' + said}")
            covered.add((kind_of(document), message))
    wanted = set()
    for definition in definitions:
        for version in definition["spec"]["versions"]:
            wanted |= set(rules(version["schema"]["openAPIV3Schema"], definition["spec"]["names"]["kind"]))
    for kind, message in sorted(wanted - covered):
        wrong.append(f"no example of {kind} for the rule: {message}")
    return f"{len(wanted)} rules, {count} examples", wrong


def blocks(guide):
    """Name and text of every YAML block; its first line is its name."""
    for text in re.findall(r"^```yaml\n(.*?)^```$", guide.read_text(), flags=re.MULTILINE | re.DOTALL):
        head = text.split("\n", 1)[0]
        name = head.removeprefix("# ")
        if not re.fullmatch(r"[a-z0-9-]+\.yaml", name) or name == head:
            sys.exit(f"{guide}: a block begins with {head!r} and not with its name, such as '# repository.yaml'")
        yield name, text


def check_guide(guide):
    """Applies all blocks but those that are values of the chart, which charts/test.sh gives to helm."""
    wrong, count = [], 0
    for name, text in blocks(guide):
        if name.startswith("values"):
            continue
        count += 1
        taken, said = apply(text)
        if not taken:
            wrong.append(f"{name} is not accepted: {said}")
    return f"{count} blocks of the guide", wrong


def main():
    arguments = sys.argv[1:]
    match arguments:
        case ["rules", directory, controller]:
            printed = subprocess.run([controller, "crd"], stdout=subprocess.PIPE, check=True).stdout
            said, wrong = check_rules(pathlib.Path(directory), json.loads(printed)["items"])
        case ["guide", guide]:
            said, wrong = check_guide(pathlib.Path(guide))
        case ["blocks", guide, directory]:
            target = pathlib.Path(directory)
            target.mkdir(parents=True, exist_ok=True)
            found = list(blocks(pathlib.Path(guide)))
            for number, (name, text) in enumerate(found):
                (target / f"{number:02}-{name}").write_text(text)
            said, wrong = f"{len(found)} blocks in {target}", []
        case _:
            sys.exit(__doc__)
    for line in wrong:
        print(f"examples.py: {line.strip()}", file=sys.stderr)
    print(said if not wrong else f"{said}, {len(wrong)} wrong")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
