"""Measures the time of one import in a fresh interpreter, and lists heavy modules it loaded.

Both modules are imported from fapilog's environment.  json is imported after the
clock has stopped, because otherwise its time would not count for the module.
"""

import sys
from time import perf_counter_ns

HEAVY = ("grpc", "fastapi", "httpx")


def main() -> None:
    module = sys.argv[1]
    start = perf_counter_ns()
    __import__(module)
    elapsed = perf_counter_ns() - start
    import json

    loaded = [name for name in HEAVY if name in sys.modules]
    print(json.dumps({"import_ms": elapsed / 1e6, "heavy": loaded, "modules": len(sys.modules)}))


if __name__ == "__main__":
    main()
