"""Keep the hot loops of the vector kernels in ``hwmodels/loops``: ``python -m soniq_dse.kernels.keep_loops``."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from soniq_dse.errors import UserError
from soniq_dse.kernels.catalog import catalog, instruction_set
from soniq_dse.kernels.loops import ISA, is_stale, kept_loop, kept_loops_folder, read_loop


def keep_loops(folder: Path) -> list[str]:
    """Bring ``folder`` up to date: stale and missing loops are written, those of kernels that are gone removed.

    Returns:
        What could not be read, one line each.
    """
    folder.mkdir(parents=True, exist_ok=True)
    specs = {spec.symbol: spec for spec in catalog() if instruction_set(spec) == ISA}
    for path in folder.glob("*.json"):
        if path.stem not in specs:
            path.unlink()
    problems = []
    for symbol, spec in specs.items():
        kept = kept_loop(symbol, folder)
        if kept is not None and not is_stale(kept):
            continue
        try:
            text = json.dumps(read_loop(spec).to_json_value(), indent=1) + "\n"
        except UserError as error:
            problems.append(str(error))
            continue
        (folder / f"{symbol}.json").write_text(text, encoding="utf-8")
    return problems


if __name__ == "__main__":
    found = keep_loops(kept_loops_folder())
    sys.stderr.writelines(f"{problem}\n" for problem in found)
    sys.exit(1 if found else 0)
