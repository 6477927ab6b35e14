"""The TypeScript SDK: its own tests in Node, its types, its package, and the facts it shares with
the Python source."""

from __future__ import annotations

import json
import random
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any, Final

import pytest

from stepstream.producers.user_ids import UserIds
from stepstream.schemas.accept import Accepted, accept_value
from stepstream.schemas.capture import is_sampled
from stepstream.schemas.ids import derived_id
from stepstream.schemas.redaction import is_secret_name, without_secrets
from tests.support.node import CLIENT, needs_node, run_node
from tests.support.paths import ROOT
from tests.support.secret_cases import PLAIN, SECRETS
from tests.support.typescript_tables import TABLES, tables

MODULES: Final = CLIENT / "node_modules"
needs_packages = pytest.mark.skipif(
    not MODULES.is_dir(), reason="the TypeScript SDK's packages are not installed"
)
_BLOCK: Final = re.compile(r"^```ts\n(.*?)^```", re.MULTILINE | re.DOTALL)


def test_the_tables_are_those_of_the_python_source() -> None:
    assert TABLES.read_text() == tables(), "run: python -m tests.support.typescript_tables"


@needs_node
def test_its_own_tests() -> None:
    files = sorted(str(path) for path in (CLIENT / "tests").glob("*.test.ts"))
    printed = run_node("--test", "--test-timeout=100000", *files)
    assert "fail 0" in printed


@needs_node
@needs_packages
@pytest.mark.parametrize(
    "command",
    [("typescript/bin/tsc", "-p", "tsconfig.json"), ("@biomejs/biome/bin/biome", "check")],
    ids=["tsc", "biome"],
)
def test_types_and_style(command: tuple[str, ...]) -> None:
    run_node(str(MODULES / command[0]), *command[1:])


_IMPORT: Final = 'import { continueRun, traceHeaders } from "stepstream";'
# What the examples of the documents use of the program around them.
_AROUND: Final = """
declare const client: any, request: any, url: string, server: any;
declare function lookUp(order: number): Promise<object>;
declare function handle(response: unknown): void;
"""


@needs_node
@needs_packages
def test_the_examples_in_the_documents_compile(tmp_path: Path) -> None:
    pages = [ROOT / "docs/typescript.md", CLIENT / "README.md"]
    found = [block for page in pages for block in _BLOCK.findall(page.read_text())]
    assert len(found) >= 3
    for number, block in enumerate(found):
        imported = "" if "import {" in block else _IMPORT
        text = f"{imported}\n{block}\n{_AROUND}\nexport {{}};\n"
        (tmp_path / f"block{number}.ts").write_text(text)
    options = {
        "noUnusedLocals": False,
        "noImplicitAny": False,
        "paths": {"stepstream": [str(CLIENT / "src/index.ts")]},
        "typeRoots": [str(MODULES / "@types")],
    }
    config = {"extends": str(CLIENT / "tsconfig.json"), "compilerOptions": options}
    (tmp_path / "package.json").write_text('{"type": "module"}')
    (tmp_path / "tsconfig.json").write_text(json.dumps({**config, "include": ["./*.ts"]}))
    run_node(str(MODULES / "typescript/bin/tsc"), "-p", str(tmp_path / "tsconfig.json"))


def _settings_in_the_document() -> dict[str, list[str]]:
    """The cells after the names of the settings, by these names."""
    text = (ROOT / "docs/typescript.md").read_text().partition("| setting | variable |")[2]
    rows = text.split("\n\n")[0].splitlines()[2:]
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    return {first: others for first, *others in cells}


@needs_node
def test_the_document_has_every_setting_and_its_default() -> None:
    rows = _settings_in_the_document()
    source = (CLIENT / "src/settings.ts").read_text().partition("export interface Resolved")[0]
    names = re.findall(r"`(\w+)`", " ".join(rows))
    assert sorted(names) == sorted(re.findall(r"^  (\w+)\?:", source, re.MULTILINE))
    found = evaluated("resolve({}, new Log(), {})", None)
    default = {first.replace("`", ""): others[1] for first, others in rows.items()}
    assert default["endpoint"] == f"`{found['endpoint']}`"
    for name in ("maxContentBytes", "batchDelayMs", "pauseLimitMs"):
        assert default[name] == f"{found[name]:,}", name
    megabytes = found["queueBytes"] >> 20
    assert default["queueEvents, queueBytes"] == f"{found['queueEvents']:,}; {megabytes} MB"
    assert (found["enabled"], found["control"], found["project"]) == (True, True, "default")
    assert (found["captureContent"], found["capture"], found["captureSample"]) == (True, {}, 1)


@needs_node
def test_the_variables_in_the_document_are_read() -> None:
    """Each alone makes the settings differ from the defaults."""
    cells = " ".join(first for first, *_ in _settings_in_the_document().values())
    named = sorted(set(re.findall(r"STEPSTREAM_\w+", cells)))
    assert len(named) > 10
    log = "new Log({ warn: () => undefined })"
    default, *found = evaluated(
        f'["", ...given].map((name) => resolve({{}}, {log}, {{ [name]: "0" }}))', named
    )
    same = [name for name, one in zip(named, found, strict=True) if one == default]
    assert same == []


def evaluated(code: str, given: Any) -> Any:
    """What a program prints that has the input as ``given``, both as JSON."""
    program = f"""
import {{ readFileSync }} from "node:fs";
import {{ withoutSecrets, isSecretName }} from "./src/index.ts";
import {{ derivedId }} from "./src/ids.ts";
import {{ Log }} from "./src/log.ts";
import {{ resolve }} from "./src/settings.ts";
import {{ encode }} from "./src/record.ts";
import {{ hashedUser, isSampled }} from "./src/privacy.ts";
const given = JSON.parse(readFileSync(0, "utf8"));
process.stdout.write(JSON.stringify({code}));
"""
    arguments = ("--input-type=module-typescript", "--eval", program)
    return json.loads(run_node(*arguments, given=json.dumps(given)))


def _texts() -> list[str]:
    """Secrets in every form, alone, in JSON and in JSON of JSON, and texts made of their parts."""
    known = [text.format(secret) for secret, text in SECRETS] + PLAIN
    nested = [json.dumps({"a": text, "password": text}) for text in known]
    texts = [*known, *nested, *(json.dumps([text]) for text in nested)]
    source = random.Random(7)
    pieces = [piece for text in known for piece in (text[:9], text[9:24], text[24:])]
    pieces += ['password="', "token=", '\\"', '"', "'", "\n", "\\", ": ", "secret", "é", " ", "=["]
    return texts + ["".join(source.choices(pieces, k=source.randint(1, 9))) for _ in range(3_000)]


@needs_node
def test_secrets_are_redacted_as_by_the_python_sdk() -> None:
    texts = _texts()
    found = evaluated("given.map(withoutSecrets)", texts)
    for text, clean in zip(texts, found, strict=True):
        assert clean == without_secrets(text), repr(text)


@needs_node
def test_redaction_takes_time_linear_in_the_text() -> None:
    """Texts on which a search that begins anew at each name would take minutes."""
    repeated = ["password=", '"token":"', "eyJ.eyJ", '\\"', "sk-", "::::", "....", "secret: x "]
    texts = [piece * (200_000 // len(piece)) for piece in repeated]
    assert evaluated("given.map(withoutSecrets).length", texts) == len(texts)


@needs_node
def test_names_of_secrets_and_derived_ids() -> None:
    names = ["db_password", "X-Api-Key", "accessToken", "next_page_token", "key", "monkey", "PWD2"]
    assert evaluated("given.map(isSecretName)", names) == [is_secret_name(name) for name in names]
    parts = ["control", "4bf92f3577b34da6a3ce929d0e0e4736", "né"]
    assert evaluated("derivedId(...given)", parts) == derived_id(*parts)


@needs_node
def test_every_process_of_a_run_decides_alike_about_its_contents() -> None:
    """And hashes a user id alike, in whichever language it is written."""
    ids = [f"{number * 7919:032x}" for number in range(300)]
    shares = [0, 0.1, 0.5, 0.999, 1]
    found = evaluated(
        "given.ids.map((id) => given.shares.map((s) => isSampled(id, s)))",
        {
            "ids": ids,
            "shares": shares,
        },
    )
    assert found == [[is_sampled(one, share) for share in shares] for one in ids]
    users = ["jane@example.com", "é", "hmac:" + "0" * 32]
    hashes = evaluated('given.map((id) => hashedUser(id, "the key"))', users)
    assert hashes == [UserIds("the key").hashed(user) for user in users]


@needs_node
def test_a_hostile_record_is_accepted_without_repairs() -> None:
    """What the SDK sends after its own limits needs no repair by ``accept``."""
    record = {
        "trace_id": "a" * 32,
        "step_id": "b" * 16,
        "parent_step_id": "",
        "phase": "end",
        "kind": "tool_call",
        "name": "n" * 10_000,
        "project": "p" * 600,
        "start_time": 1_800_000_000_000_000,
        "end_time": 1_800_000_000_000_001,
        "status": "ok",
        "input": "\0 é\u202e" * 100_000,
        "output": '"' * 400_000,
        "error_message": "m" * 100_000,
        "attributes": {f"k{number}": "v" * 9_000 for number in range(200)},
        "documents": [{"id": "d" * 600, "score": 1, "content": "é" * 9_000}] * 500,
        "usage": {"input_tokens": 5, "incomplete": True},
        "cost_usd": "0.25",
    }
    line = evaluated("encode(given, 65536)", record)
    accepted = accept_value(line.encode(), timestamp_us=1_800_000_000_000_002)
    assert isinstance(accepted, Accepted), accepted
    assert accepted.clamped == ()


@needs_node
@needs_packages
def test_the_package(tmp_path: Path) -> None:
    """It has no dependency, names no path of this project, and runs from its compiled form."""
    command = [sys.executable, str(ROOT / "web_build/typescript.py"), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (archive,) = tmp_path.glob("stepstream-*.tgz")
    with tarfile.open(archive) as packed:
        names = set(packed.getnames())
        packed.extractall(tmp_path, filter="data")
    assert {"package/dist/index.js", "package/dist/index.d.ts", "package/README.md"} <= names
    assert {"package/package.json", "package/LICENSE"} <= names
    assert not [name for name in names if "test" in name or name.endswith(".test.ts")]
    manifest = json.loads((tmp_path / "package/package.json").read_text())
    assert "dependencies" not in manifest
    installed = tmp_path / "node_modules/stepstream"
    installed.parent.mkdir()
    shutil.move(tmp_path / "package", installed)
    program = 'import { run, KINDS } from "stepstream"; console.log(typeof run, KINDS[0]);'
    (tmp_path / "program.mjs").write_text(program)
    assert run_node("program.mjs", folder=tmp_path) == "function agent\n"
