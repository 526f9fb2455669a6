#!/usr/bin/env python3
"""Whether scripts/sbom lists what the programs are linked with. Usage: sbom_test.py SOURCE_DIR PROGRAM..."""
import json
import os
import re
import subprocess
import sys

# Of the compiler and the C library, which are in every program.
TOOLCHAIN = {"glibc", "gcc-12", "gcc-13", "gcc-14", "gcc-15"}


def output(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def fail(text):
    sys.exit(f"sbom_test: {text}")


def libraries_of(program):
    """The files of the shared libraries that a program asks for by itself."""
    wanted = re.findall(r"\(NEEDED\).*\[(.*)\]", output("readelf", "-d", program))
    found = dict(re.findall(r"(\S+) => (\S+)", output("ldd", program)))
    return [found[name] for name in wanted if name in found]


def source_package_of(file):
    for name in (file, os.path.realpath(file), file.removeprefix("/usr")):
        owner = subprocess.run(["dpkg", "-S", name], capture_output=True, text=True).stdout
        if owner:
            return output("dpkg-query", "-W", "-f=${source:Package}", owner.split(": ")[0].split(",")[0])
    return fail(f"no package has {file}")


def main():
    source_dir, programs = sys.argv[1], sys.argv[2:]
    bom = json.loads(output(os.path.join(source_dir, "scripts/sbom")))
    if (bom["bomFormat"], bom["specVersion"]) != ("CycloneDX", "1.5"):
        fail("no CycloneDX 1.5")
    listed = {component["name"] for component in bom["components"]}
    for component in bom["components"]:
        if not component["version"] or f"@{component['version']}?" not in component["purl"]:
            fail(f"no version in {component}")
    if set(bom["dependencies"][0]["dependsOn"]) != {c["bom-ref"] for c in bom["components"]}:
        fail("components and dependencies differ")
    for program in programs:
        for library in libraries_of(program):
            package = source_package_of(library)
            if package not in listed | TOOLCHAIN:
                fail(f"{program} is linked with {library}, of {package}, which is not listed")
    print(f"{len(listed)} components, {bom['metadata']['component']['version']}")


main()
